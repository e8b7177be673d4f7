"""The two processes that `python -m benchmarks.models` times in turn, ours and PyTorch's, and what they are asked."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import UserError

ROOT = Path(__file__).parents[1]
OURS = (sys.executable, "-m", "benchmarks.zoo_peer")
WORKER = Path(__file__).parent / "torch_peer" / "worker.py"
INSTALL = "pip install torch==2.14.1 torchvision==0.29.1"


class PeerError(RuntimeError):
    """A process could not do what it was asked, or ended."""


class Peer:
    """A process that answers as `torch_peer/serving.py` has it."""

    def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str]):
        self.name = name
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """What the process answers.

        Raises:
          PeerError: it could not do it; the message is one line.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps({"do": do} | arguments), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline() or "null")
        except (BrokenPipeError, json.JSONDecodeError):
            answer = None
        if not isinstance(answer, dict):
            raise PeerError(f"{self.name} ended with {self._ending()}")
        if "error" in answer:
            raise PeerError(f"{self.name} could not {do}: {answer['error']}") from _RemoteError(answer["trace"])
        return answer

    def _ending(self) -> str:
        self._process.kill()
        code = self._process.wait()
        self._told.seek(0)
        lines = self._told.read().strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1]}" if lines else ", saying nothing")

    def close(self) -> None:
        """Lets the process end, which it does when nothing more can be asked, or ends it after a while."""
        for pipe in (self._process.stdin, self._process.stdout, self._told):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _RemoteError(Exception):
    """The other process's traceback, so that ours shows it."""


@contextlib.contextmanager
def peers(torch_python: str, threads: int, caches: Path) -> Iterator[tuple[Peer, Peer, dict[str, str]]]:
    """Our process and PyTorch's, both kept to as many processors as they may have threads, and their versions.

    They begin with no compiled programs: PyTorch's are kept in the folder `caches`, ours nowhere.

    Raises:
      UserError: `torch_python` is no Python that has torch and torchvision.
    """
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    eigen = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    ours_alone = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": eigen, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    theirs_alone = {"TORCHINDUCTOR_CACHE_DIR": str(caches)}
    with contextlib.ExitStack() as stack, kept_to(threads):
        program = shutil.which(torch_python)
        if program is None:
            raise UserError(f"--torch-python {torch_python} is no program here; give the Python of an environment")
        try:
            # Its links stay as they are: an environment's Python is one, and knows its place by it.
            theirs = Peer("PyTorch's process", (os.path.abspath(program), str(WORKER)), count | theirs_alone)
        except OSError as error:  # a text file, or one for another machine
            raise UserError(f"--torch-python {torch_python}: {error.strerror}") from error
        stack.callback(theirs.close)
        try:
            versions = theirs.ask("hello")["versions"]
        except PeerError as error:
            raise UserError(f"--torch-python {torch_python}: {error}; it has to be a Python after {INSTALL}") from error
        ours = Peer("our process", OURS, count | ours_alone)
        stack.callback(ours.close)
        yield ours, theirs, ours.ask("hello")["versions"] | versions


def processors() -> list[int]:
    """Those that this process may use."""
    # macOS and Windows cannot keep a process to some of them.
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def kept_to(threads: int) -> Iterator[None]:
    """This thread, and the processes that it starts, on the last processors: the system likes to work on the first."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors()[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
