"""A training step compiled for a slice that is not here, by a process of its own that can be waited for and stopped."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.pod.results import way
from benchmarks.pod.slices import Slice
from zoo import hub
from zoo.errors import UserError
from zoo.parallel import Parallel


class LateError(UserError):
    """The compiler took longer than it was given."""


def compiled(model: str, slice_: Slice, parallel: Parallel, per_chip: int, patience: float) -> dict[str, Any]:
    """What `benchmarks.pod.worker` reports of a training step with so many clips a chip; from the cache, if it has it.

    Progress goes to stderr.

    Args:
      patience: seconds after which the compiler is stopped.

    Raises:
      LateError: that was not enough.
      UserError: no TPU compiler is installed, the program does not compile, or the compiler ended its process.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed: uv sync --extra tpu")
    what = f"{model} by {way(parallel)} for {slice_.name}, {per_chip} clips a chip"
    split = [parallel.strategy, str(parallel.batch_norm_devices)]
    asked = [model, slice_.name, *split, str(per_chip), str(hub.cache_folder() / "pod_slice")]
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pod.worker", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},  # read when jax is imported, which comes before the worker's code
        text=True,
    )
    assert worker.stdout is not None
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    late = threading.Timer(patience, worker.kill)
    late.start()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            shown = progress.add_task(what)
            for line in worker.stdout:
                answer = json.loads(line)
                if "report" in answer:
                    return answer["report"]
                if "error" in answer:
                    raise UserError(f"{what}: {answer['error']}")
                progress.update(shown, description=f"{what}: {answer['stage']}")
                if not console.is_terminal:
                    console.print(f"{what}: {answer['stage']}", soft_wrap=True)
        if late.is_alive():
            raise UserError(f"{what}: the compiler ended its process; the program is beyond it, or memory ran out")
        raise LateError(f"{what}: not compiled within {patience:g} seconds; give more with --patience")
    finally:
        late.cancel()
        worker.kill()
        worker.wait()
