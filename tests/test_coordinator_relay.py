"""The relay between JAX and the coordinator, with a coordinator that says back what it hears, and is killed."""

import os
import socket
import subprocess
import sys

import pytest

from zoo.coordinator_relay import Relay, host_and_port

ECHO = """
import socket
door = socket.create_server(("127.0.0.1", 0))
print(door.getsockname()[1], flush=True)
connection, _ = door.accept()
while data := connection.recv(2**16):
    connection.sendall(data)
"""


def test_bytes_go_both_ways_and_the_end_is_heard_by_nobody_else():
    coordinator = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert coordinator.stdout is not None
    relay = Relay(f"127.0.0.1:{coordinator.stdout.readline().strip()}")
    client = socket.create_connection(host_and_port(relay.address))
    sent = os.urandom(300_000)
    client.sendall(sent)
    heard = b""
    while len(heard) < len(sent):
        heard += client.recv(2**16)
    assert heard == sent
    assert not relay.broken.is_set()

    coordinator.kill()
    coordinator.communicate()
    assert relay.broken.wait(10)
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):  # an end would be b""
        client.recv(1)
    client.sendall(b"still open")


def test_an_address_in_two_parts():
    assert host_and_port("a.example:8476") == ("a.example", 8476)
    assert host_and_port("[2001:db8::1]:8476") == ("2001:db8::1", 8476)
