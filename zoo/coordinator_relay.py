"""A relay between JAX and the coordinator, so that the coordinator's end is heard here and not by JAX.

The moment its connection to process 0 breaks, JAX's client ends the process with a stack trace, from C++ and past every
handler; neither `jax.distributed.initialize` nor `jax_enable_recoverability` changes that. Of a relay on the same
machine the client sees no end, and so the process can say what happened.
"""

import contextlib
import socket
import threading

_BYTES = 2**16


class Relay:
    """Passes bytes on between the client and the coordinator, both ways.

    Attributes:
      address: HOST:PORT that the client is to take for the coordinator's.
      broken: set once the coordinator's side has ended, or the client's, which ends only when the run is over.
    """

    def __init__(self, coordinator: str):
        self.broken = threading.Event()
        self._coordinator = host_and_port(coordinator)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._door.getsockname()[1]}"
        self._kept: list[socket.socket] = []  # or they would be closed with the thread that used them
        threading.Thread(target=self._serve, daemon=True, name="zoo relay").start()

    def _serve(self) -> None:
        while True:
            near, _ = self._door.accept()
            self._kept.append(near)
            try:
                far = socket.create_connection(self._coordinator)
            except OSError:
                self.broken.set()
                continue
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # messages are small, and waited for
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True, name="zoo relay").start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BYTES):
                sink.sendall(data)
        self.broken.set()
        if source in self._kept:  # the client has gone: the coordinator is to see it
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


def host_and_port(address: str) -> tuple[str, int]:
    """Both parts of "HOST:PORT", an IPv6 address without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
