"""What the processes of a run hear of each other: how far each is, and that one is lost.

They talk through the key-value store of JAX's coordination service, which lives in process 0.
"""

import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import jax

from zoo.errors import UserError

SILENT_SECONDS = 30.0
"""A process that gives no sign of life for so long is lost: it was killed or stopped, or its machine is gone."""


_STARTING = 10
"""So much longer than later a process may take before its first step."""


class Watch:
    """Tells the other processes how far this one is, and ends it with a line when one of them is lost.

    As a context it runs beside the run. `beat` counts what the run does. A process is lost if it is behind the others
    and stands still for `timeout` seconds, before its first beat ten times as long; if it gives no sign of life for the
    shorter of `timeout` and 30 s; or if it ended with an error. If all stand still for as long, all stop.

    Args:
      cut: set when the connection to process 0 breaks.
    """

    def __init__(self, timeout: float, cut: threading.Event):
        self.cut = cut
        self.timeout, self.silent = timeout, min(timeout, SILENT_SECONDS)
        self.interval = min(2.0, self.silent / 5)
        self.beats, self.step, self.ended, self.signs = 0, 0, None, 0
        self.over = threading.Event()

    def beat(self, step: int) -> None:
        """Notes that the run has moved on, at a step."""
        self.beats, self.step = self.beats + 1, step

    def __enter__(self) -> "Watch":
        self.store, self.me, self.count = store(), jax.process_index(), jax.process_count()
        now = time.monotonic()
        self.last_talk = now
        self.heard: dict[int, dict[str, Any]] = {}
        self.signed = dict.fromkeys(range(self.count), now)
        self.moved = dict.fromkeys(range(self.count), now)
        for work in (self._talk, self._judge):
            threading.Thread(target=work, daemon=True, name=f"zoo watch{work.__name__}").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None and issubclass(kind, jax.errors.JaxRuntimeError):
            # A collective fails when a process is lost: who it was is known a little later, and this process then ends.
            self.over.wait(self.silent + 3 * self.interval)
        if kind is None or (issubclass(kind, SystemExit) and not isinstance(error, UserError)):
            self.ended = {"error": None}
        else:
            line = " ".join(str(error).split()) or kind.__name__
            self.ended = {"error": line, "code": 2 if issubclass(kind, UserError) else 1}
        with contextlib.suppress(Exception):
            self._sign()
        if self.me == 0 and self.ended["error"]:
            self._let_the_others_go()
        self.over.set()

    def _let_the_others_go(self) -> None:
        """Process 0 holds the store: once it ends, JAX ends the others with a stack trace and before they can speak."""
        time.sleep(3 * self.interval)

    def _sign(self) -> None:
        self.signs += 1
        where = f"{socket.gethostname()}, process id {os.getpid()}"
        told = {"signs": self.signs, "beats": self.beats, "step": self.step, "where": where, "ended": self.ended}
        self.store.key_value_set(f"zoo/watch/{self.me}", json.dumps(told), allow_overwrite=True)

    def _talk(self) -> None:
        while not self.over.wait(self.interval):
            with contextlib.suppress(Exception):  # process 0 is gone: the silence tells
                self._sign()
                told = self.store.key_value_dir_get("zoo/watch/")
                now = time.monotonic()
                for key, text in told:
                    process, new = int(key.rpartition("/")[2]), json.loads(text)
                    old = self.heard.get(process, {"signs": 0, "beats": 0})
                    if new["signs"] != old["signs"]:
                        self.signed[process] = now
                    if new["beats"] != old["beats"]:
                        self.moved[process] = now
                    self.heard[process] = new
                self.last_talk = now

    def _judge(self) -> None:
        while not self.over.wait(self.interval):
            lost = self._lost(time.monotonic())
            if lost is not None and not self.over.is_set():
                line, code = lost
                if self.me == 0:
                    self._let_the_others_go()
                way_out = "" if code == 2 else "; the same command goes on from the last checkpoint"
                leave(f"{line}; process {self.me} stops{way_out}", code)

    def _lost(self, now: float) -> tuple[str, int] | None:
        """What is wrong, and the exit code; None if all is well."""
        heard = dict(self.heard)
        for process, told in heard.items():
            if process != self.me and told["ended"] and told["ended"]["error"]:
                return f"{self._name(process)} ended: {told['ended']['error']}", told["ended"]["code"]
        if self.cut.is_set() and not heard.get(0, {}).get("ended"):
            return f"{self._name(0)}, the coordinator, is gone", 1
        if self.me and now - self.last_talk > self.silent:
            return f"{self._name(0)}, the coordinator, has not answered for {self.silent:g} s", 1
        running = [process for process in range(self.count) if not heard.get(process, {}).get("ended")]
        for process in running:
            if process != self.me and now - self.signed[process] > self.silent:
                return f"{self._name(process)} has given no sign of life for {self.silent:g} s", 1
        beats = {process: heard.get(process, {}).get("beats", 0) for process in running}
        limits = {process: self.timeout if beats[process] else _STARTING * self.timeout for process in running}
        standing = [process for process in running if now - self.moved[process] > limits[process]]
        behind = [process for process in standing if beats[process] < max(beats.values())]
        if behind:
            last = min(behind, key=beats.__getitem__)
            return f"{self._name(last)} has stood still for {limits[last]:g} s", 1
        if standing and len(standing) == len(running):
            return f"all {self.count} processes have stood still for {max(limits.values()):g} s, at step {self.step}", 1
        return None

    def _name(self, process: int) -> str:
        told = self.heard.get(process)
        at = f" ({told['where']}, at step {told['step']})" if told else ""
        return f"process {process} of {self.count}{at}"


def leave(line: str, code: int) -> None:
    """Ends the process at once, for when its main thread waits for something that nothing interrupts."""
    print(f"zoo train: {line}", file=sys.stderr, flush=True)
    os._exit(code)


@functools.cache
def store() -> Any:
    """The key-value store that all processes share. JAX has no public name for it; Orbax reaches for it like this."""
    from jax._src import distributed

    return distributed.global_state.client
