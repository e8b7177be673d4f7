"""A clock for TPU programs that needs no TPU.

The real TPU compiler (libtpu) compiles a function for a chip; the scalar side of its final program is then run, and
every bundle counted. XLA's fusions and Pallas kernels pass through the same count, so they can be compared. It is an
estimate: it knows no stalls beyond the static schedule and no short-stride DMA, and differences of products bound by
the matrix units below 15% mean little. What it says is clamped to what the chip could do at best.
"""

import atexit
import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from benchmarks.tpu_static.chips import CHIPS, REFUSED, Chip

__all__ = ["CHIPS", "REFUSED", "Estimate", "EstimateError", "check", "estimate", "judged"]


class EstimateError(Exception):
    """The compiler refused the program, or its run did not come to a clean end."""


@dataclass(frozen=True)
class Estimate:
    """What a program costs on a chip.

    `microseconds` is the longest of the count (`cycles` at the chip's clock), of `flops` at the matrix units' peak and
    of `hbm_bytes` at HBM's bandwidth. `by_operation` has the cycles of each HLO operation, the dearest first; `slots`
    how often each of the vector slots was used.
    """

    chip: Chip
    cycles: float
    stalled: float
    flops: float
    hbm_bytes: float
    slots: Mapping[str, int]
    by_operation: tuple[tuple[str, float], ...]
    compile_seconds: float

    @property
    def microseconds(self) -> float:
        counted = self.cycles / self.chip.clock
        return 1e6 * max(counted, self.flops / self.chip.peak, self.hbm_bytes / self.chip.bandwidth)

    @property
    def peak_share(self) -> float:
        """Of the matrix units' peak, at most 1."""
        return self.flops / self.chip.peak / (self.microseconds * 1e-6)


def check(chip: str) -> None:
    """Whether anything can be estimated for a chip of this name here.

    Raises:
      EstimateError: it cannot, for any program: no such chip, one that the clock cannot judge, or no TPU compiler.
    """
    if chip not in CHIPS:
        why = f"{chip} is refused: {REFUSED[chip]}" if chip in REFUSED else f"no chip {chip!r}"
        raise EstimateError(f"{why}; there are {', '.join(CHIPS)}")
    if importlib.util.find_spec("libtpu") is None:
        raise EstimateError("the TPU compiler is not installed: uv sync --extra tpu")


def estimate(
    function: Callable[..., Any],
    *shapes: Any,
    chip: str,
    flops: float | None = None,
    patience: float | None = None,
) -> Estimate:
    """What `function` of arrays of these shapes costs when it is compiled for one chip.

    Args:
      function: any function that jit takes, lowered for a TPU.
      shapes: `jax.ShapeDtypeStruct`s or pytrees of them.
      chip: a name of `CHIPS`.
      flops: the arithmetic that it needs, where XLA cannot count it: it does not look into kernels.
      patience: seconds after which the compiler is stopped; None waits for it.

    Raises:
      EstimateError: no libtpu, an unknown chip, a program that does not compile (in time), or a run that did not end
        where the program does, waited for what nobody sends, or met scalar instructions that are not understood.
    """
    check(chip)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program"
        file.write_bytes(_exported(function, *shapes, chip=CHIPS[chip]))
        answer = _ask(chip, file, patience)
    if "error" in answer:
        raise EstimateError(answer["error"])
    return judged(answer, CHIPS[chip], answer["flops"] if flops is None else flops)


def judged(answer: Mapping[str, Any], chip: Chip, flops: float) -> Estimate:
    """The estimate of a program that needs `flops`, from what a worker counted of it.

    Raises:
      EstimateError: it was not run cleanly, as `estimate` says.
    """
    wrong = [f"{answer['stuck']} waits for nothing"] * bool(answer["stuck"])
    wrong += ["it did not reach its end"] * (not answer["ended"])
    wrong += [f"unknown instructions {answer['unknown']}"] * bool(answer["unknown"])
    if wrong:
        raise EstimateError(f"the program for {chip.name} did not run cleanly: {'; '.join(wrong)}")
    return Estimate(
        chip=chip,
        cycles=answer["cycles"],
        stalled=answer["stalled"],
        flops=flops,
        hbm_bytes=answer["hbm_bytes"],
        slots=answer["slots"],
        by_operation=tuple((name, cycles) for name, cycles in answer["by_operation"]),
        compile_seconds=answer["compile_seconds"],
    )


def _exported(function: Callable[..., Any], *shapes: Any, chip: Chip) -> bytes:
    """The program for a TPU, whose kernels are in it as the compiler takes them; some ask which TPU it is."""
    calls = [export.DisabledSafetyCheck.custom_call(name) for name in ("tpu_custom_call", "LayoutConstraint")]
    leaves, structure = jax.tree.flatten(shapes)
    flat = jax.jit(lambda *arrays: function(*jax.tree.unflatten(structure, arrays)))
    target = AbstractDevice(chip.device_kind, 1, "tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("chip",), (AxisType.Auto,), abstract_device=target)):
        return bytes(export.export(flat, platforms=["tpu"], disabled_checks=calls)(*leaves).serialize())


@functools.cache
def _worker(chip: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tpu_static.worker", chip],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},  # read when jax is imported, which comes before the worker's code
        text=True,
    )
    atexit.register(process.kill)
    return process


def _ask(chip: str, file: Path, patience: float | None) -> dict[str, Any]:
    worker = _worker(chip)
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        print(file, file=worker.stdin, flush=True)
        in_time, _, _ = select.select([worker.stdout], [], [], patience)
        answer = worker.stdout.readline() if in_time else ""
    except BrokenPipeError:
        in_time, answer = [worker], ""
    if not answer:
        worker.kill()
        _worker.cache_clear()
        ended = "ended its process; the program is beyond it, or memory ran out"
        raise EstimateError(f"the compiler {ended if in_time else f'took more than {patience:.0f} seconds'}")
    return json.loads(answer)
