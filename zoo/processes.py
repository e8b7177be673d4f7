"""Many processes as one run: they find each other, agree on what they run, and hear of one that is lost.

They talk through the key-value store of JAX's coordination service, which lives in process 0.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo import kernels
from zoo.errors import UserError

_SILENT_SECONDS = 30.0
"""A process that gives no sign of life for so long is lost: it was killed or stopped, or its machine is gone."""


@contextlib.contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> Iterator["Watch"]:
    """Context in which this process is one of many, as the arguments or the platform say, and is watched by the others.

    Cloud TPU, SLURM, Open MPI and Kubernetes tell JAX what it has to know. Where nothing tells of others the process is
    on its own.

    Args:
      coordinator: HOST:PORT of process 0.
      timeout: seconds after which a process that does not come, or does not go on, counts as lost.

    Raises:
      UserError: an argument is missing or wrong, or the processes do not find each other.
    """
    if _is_one_of_many(coordinator, num_processes, process_id):
        _join(coordinator, num_processes, process_id, timeout)
    watch = Watch(timeout)
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        with watch:
            yield watch
    else:
        yield watch
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _is_one_of_many(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    flags = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [flag for flag, value in flags.items() if value is None]
    if not missing:
        assert coordinator is not None
        assert num_processes is not None
        assert process_id is not None
        if not coordinator.rpartition(":")[2].isdecimal() or ":" not in coordinator:
            raise UserError(f"--coordinator {coordinator} is not HOST:PORT, such as 10.0.0.1:8476")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process-id {process_id} is not from 0 to {num_processes - 1}")
        return num_processes > 1
    if len(missing) < len(flags):
        raise UserError(f"--coordinator, --num-processes and --process-id go together; {', '.join(missing)} is missing")
    many = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    return (
        any(int(os.environ.get(name, "1")) > 1 for name in many)
        or "JAX_COORDINATOR_ADDRESS" in os.environ
        or "JOB_COMPLETION_INDEX" in os.environ
        or (importlib.util.find_spec("libtpu") is not None and any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0"))))
    )


def _join(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float) -> None:
    if process_id and coordinator:
        _await_coordinator(coordinator, timeout)
    who = f"{num_processes} processes at {coordinator}" if coordinator else "processes that the platform told of"
    # JAX's own time-out ends the process with a stack trace: this one comes before it.
    line = f"the {who} did not find each other within {timeout:g} s; do all of them run?"
    late = threading.Timer(timeout, _leave, (line, 2))
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(2 * timeout + _SILENT_SECONDS),
            # The watch is to speak first: when JAX finds a process lost it ends the others with a stack trace.
            heartbeat_timeout_seconds=int(10 * (timeout + _SILENT_SECONDS)),
            shutdown_timeout_seconds=int(_SILENT_SECONDS),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {who} did not find each other: {str(error).splitlines()[0]}") from error
    finally:
        late.cancel()


def _leave(line: str, code: int) -> None:
    """Ends the process at once, for when its main thread waits for something that nothing interrupts."""
    print(f"zoo train: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def _await_coordinator(coordinator: str, timeout: float) -> None:
    """Returns once somebody listens there. JAX's own time-out ends the process with a stack trace."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=max(0.1, min(5, timeout))).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = f"the coordinator {coordinator} did not answer within {timeout:g} s: {error.strerror or error}"
                raise UserError(f"{reason}; does process 0 run, and is the port open?") from error
            time.sleep(0.2)


def check_alike(settings: Mapping[str, Any]) -> None:
    """Raises UserError in every process if the processes differ in settings, versions or code; it names how."""
    facts = {name: str(value) for name, value in settings.items()} | _versions() | _code()
    store = _store()
    store.key_value_set(f"zoo/facts/{jax.process_index()}", json.dumps(facts))
    store.wait_at_barrier("zoo/facts", int(_SILENT_SECONDS * 1000))
    told = {int(key.rpartition("/")[2]): json.loads(text) for key, text in store.key_value_dir_get("zoo/facts/")}
    for process, others in sorted(told.items()):
        for name in sorted({*told[0], *others}):
            first, other = told[0].get(name, "missing"), others.get(name, "missing")
            if first != other:
                reason = f"process {process} has {name} {other}, process 0 has {first}"
                raise UserError(f"{reason}; start all with the same command and the same code")


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {name: importlib.metadata.version(name) for name in packages} | {"Python": platform.python_version()}


def _code() -> dict[str, str]:
    """The first digits of each source file's SHA-256."""
    roots = {"zoo": Path(__file__).parent, "kernels": Path(str(kernels.__file__)).parent}
    return {
        f"{name}/{path.relative_to(root)}": hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for name, root in roots.items()
        for path in sorted(root.rglob("*.py"))
    }


def as_first(decide: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """What process 0 decides, in every process."""
    mine = decide() if jax.process_index() == 0 else (0, 0)
    if jax.process_count() == 1:
        return mine
    first, second = multihost_utils.broadcast_one_to_all(np.array(mine))
    return int(first), int(second)


class Watch:
    """Tells the other processes how far this one is, and ends it with a line when one of them is lost.

    As a context it runs beside the run. `beat` counts what the run does. A process is lost if it is behind the others
    and stands still for `timeout` seconds, if it gives no sign of life for the shorter of this and 30 s, or if it ended
    with an error. If all stand still for `timeout` seconds, after the first beat, all stop.
    """

    def __init__(self, timeout: float):
        self.timeout, self.silent = timeout, min(timeout, _SILENT_SECONDS)
        self.interval = min(2.0, self.silent / 5)
        self.beats, self.step, self.ended, self.signs = 0, 0, None, 0
        self.over = threading.Event()

    def beat(self, step: int) -> None:
        """Notes that the run has moved on, at a step."""
        self.beats, self.step = self.beats + 1, step

    def __enter__(self) -> "Watch":
        self.store, self.me, self.count = _store(), jax.process_index(), jax.process_count()
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
                _leave(f"{line}; process {self.me} stops", code)

    def _lost(self, now: float) -> tuple[str, int] | None:
        """What is wrong, and the exit code; None if all is well."""
        heard = dict(self.heard)
        for process, told in heard.items():
            if process != self.me and told["ended"] and told["ended"]["error"]:
                return f"{self._name(process)} ended: {told['ended']['error']}", told["ended"]["code"]
        if self.me and now - self.last_talk > self.silent:
            return f"{self._name(0)}, the coordinator, has not answered for {self.silent:g} s", 1
        running = [process for process in range(self.count) if not heard.get(process, {}).get("ended")]
        for process in running:
            if process != self.me and now - self.signed[process] > self.silent:
                return f"{self._name(process)} has given no sign of life for {self.silent:g} s", 1
        beats = {process: heard.get(process, {}).get("beats", 0) for process in running}
        standing = [process for process in running if now - self.moved[process] > self.timeout]
        behind = [process for process in standing if beats[process] < max(beats.values())]
        if behind:
            return f"{self._name(min(behind, key=beats.__getitem__))} has stood still for {self.timeout:g} s", 1
        if standing and len(standing) == len(running) and min(beats.values()) > 0:
            return f"all {self.count} processes have stood still for {self.timeout:g} s, at step {self.step}", 1
        return None

    def _name(self, process: int) -> str:
        told = self.heard.get(process)
        at = f" ({told['where']}, at step {told['step']})" if told else ""
        return f"process {process} of {self.count}{at}"


@functools.cache
def _store() -> Any:
    """The key-value store that all processes share. JAX has no public name for it; Orbax reaches for it like this."""
    from jax._src import distributed

    return distributed.global_state.client
