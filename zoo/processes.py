"""Many processes as one run: they find each other, and agree on what they run."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
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
from zoo.process_watch import SILENT_SECONDS, Watch, leave, store


@contextlib.contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> Iterator[Watch]:
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
    late = threading.Timer(timeout, leave, (line, 2))
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(2 * timeout + SILENT_SECONDS),
            # The watch is to speak first: when JAX finds a process lost it ends the others with a stack trace.
            heartbeat_timeout_seconds=int(10 * (timeout + SILENT_SECONDS)),
            shutdown_timeout_seconds=int(SILENT_SECONDS),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {who} did not find each other: {str(error).splitlines()[0]}") from error
    finally:
        late.cancel()


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
    shared = store()
    shared.key_value_set(f"zoo/facts/{jax.process_index()}", json.dumps(facts))
    shared.wait_at_barrier("zoo/facts", int(SILENT_SECONDS * 1000))
    told = {int(key.rpartition("/")[2]): json.loads(text) for key, text in shared.key_value_dir_get("zoo/facts/")}
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
