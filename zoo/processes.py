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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo import kernels
from zoo.coordinator_relay import Relay, host_and_port
from zoo.errors import UserError
from zoo.process_flags import ProcessFlags
from zoo.process_watch import SILENT_SECONDS, Watch, leave, store


@contextlib.contextmanager
def joined(flags: ProcessFlags, timeout: float) -> Iterator[Watch]:
    """Context in which this process is one of many, as the flags or the platform say, and is watched by the others.

    Cloud TPU, SLURM, Open MPI and Kubernetes tell JAX what it has to know. Where nothing tells of others the process is
    on its own.

    Args:
      timeout: seconds after which a process that does not come, or does not go on, counts as lost.

    Raises:
      UserError: a flag is missing or wrong, or the processes do not find each other.
    """
    flags.check(meet=True)
    watch = Watch(timeout, _join(flags, timeout) if _is_one_of_many(flags) else threading.Event())
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        with watch:
            yield watch
    else:
        yield watch
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def place(flags: ProcessFlags) -> tuple[int, int]:
    """Which process this is, from 0 on, and of how many, for a list of work of which each does a part.

    They never meet: any of them may be lost, or come later, without the others.

    Raises:
      UserError: a flag is missing or wrong.
    """
    flags.check(meet=False)
    if not _is_one_of_many(flags):
        return 0, 1
    if flags.num_processes is not None and flags.process_id is not None:
        return flags.process_id, flags.num_processes
    _, count, number, devices = _told_by_platform("nobody:0", timeout=60)
    if devices:  # to each process of a machine its GPU, as `jax.distributed` has it
        jax.config.update("jax_cuda_visible_devices", ",".join(map(str, devices)))
    return number, count


def _is_one_of_many(flags: ProcessFlags) -> bool:
    if flags.num_processes is not None:
        return flags.num_processes > 1
    has_chips = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    return _environment_tells_of_others() or (has_chips and importlib.util.find_spec("libtpu") is not None)


def _environment_tells_of_others() -> bool:
    # What stands in a SLURM job outside of srun is on its own, however many tasks the job has.
    sizes = ("OMPI_COMM_WORLD_SIZE", *(["SLURM_NTASKS"] if "SLURM_STEP_NODELIST" in os.environ else []))
    return (
        any(int(os.environ.get(name, "1")) > 1 for name in sizes)
        or "JAX_COORDINATOR_ADDRESS" in os.environ
        or "JOB_COMPLETION_INDEX" in os.environ
    )


def _told_by_platform(coordinator: str | None, timeout: float) -> tuple[str, int, int, Sequence[int] | None]:
    """The coordinator's address, how many processes there are, which this is, and the devices that it may use.

    JAX asks the platform, and has no public name for it.

    Args:
      coordinator: the address, if it is known or not wanted.
    """
    from jax._src.clusters import ClusterEnv

    try:
        told = ClusterEnv.auto_detect_unset_distributed_params(coordinator, None, None, None, None, int(timeout))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the platform does not tell this process of the others: {error}") from error
    address, count, number, devices = told
    if address is None or count is None or number is None:
        if not _environment_tells_of_others():
            return "", 1, 0, None  # a machine with a TPU, and with no others
        reason = "the platform tells of other processes, and not how many there are and which this is"
        raise UserError(f"{reason}; give --coordinator, --num-processes and --process-id")
    return address, count, number, devices


def _join(flags: ProcessFlags, timeout: float) -> threading.Event:
    """Returns what is set when the coordinator is gone."""
    coordinator, count, number, devices = flags.coordinator, flags.num_processes, flags.process_id, None
    who = f"{count} processes at {coordinator}"
    if coordinator is None or count is None or number is None:
        coordinator, count, number, devices = _told_by_platform(os.environ.get("JAX_COORDINATOR_ADDRESS"), timeout)
        who = "processes that the platform told of"
        if count == 1:
            return threading.Event()
    relay = None
    if number:
        _await_coordinator(coordinator, timeout)
        relay = Relay(coordinator)
    # JAX's own time-out ends the process with a stack trace: this one comes before it.
    line = f"the {who} did not find each other within {timeout:g} s; do all of them run?"
    late = threading.Timer(timeout, leave, (line, 2))
    late.start()
    try:
        jax.distributed.initialize(
            relay.address if relay else coordinator,
            count,
            number,
            devices,
            initialization_timeout=int(2 * timeout + SILENT_SECONDS),
            # The watch is to speak first: when JAX finds a process lost it ends the others with a stack trace.
            heartbeat_timeout_seconds=int(10 * (timeout + SILENT_SECONDS)),
            shutdown_timeout_seconds=int(SILENT_SECONDS),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {who} did not find each other: {str(error).splitlines()[0]}") from error
    finally:
        late.cancel()
    return relay.broken if relay else threading.Event()


def _await_coordinator(coordinator: str, timeout: float) -> None:
    """Returns once somebody listens there. JAX's own time-out ends the process with a stack trace."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(host_and_port(coordinator), timeout=max(0.1, min(5, timeout))).close()
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
