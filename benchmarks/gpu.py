"""Times our GPU kernels against XLA on the GPU of this machine, and enters those that win in `kernels/tuned/cuda.json`.

    python -m benchmarks.gpu            a table of all cases, saved in benchmarks/results/
    python -m benchmarks.gpu --tune     and the winners become the default on GPUs

Every case of the models (`cases.py`) that a kernel serves is first checked against XLA in float32, then timed in all
block sizes, taking turns with XLA's own and with the plain-JAX reformulation. Times are medians.
"""

import dataclasses
import datetime
import re
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import tables
from zoo import command_line
from zoo.errors import UserError
from zoo.kernels import dispatch
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.conv.gpu import TILES
from zoo.kernels.pool.cases import CASES as POOL

ROUNDS = 11
CALLS = 20  # in one program, so that Python's share of the time is small
MARGIN = 1.03  # a kernel that wins by less may lose on another day
TOLERANCE = 1e-2  # of the largest value: bfloat16 keeps 8 bits

type Implementation = tuple[str, tuple[tuple[str, int], ...]]  # name and block sizes


def candidates(operation: str, operands: list[jax.ShapeDtypeStruct]) -> list[Implementation]:
    """XLA's, the reformulation, and our kernel in all block sizes."""
    if operation == "conv":
        features = operands[1].shape[-1]
        blocks = [(("pixels", p), ("features", f)) for p, f in TILES if features % f == 0]
    else:
        blocks = [(("columns", columns),) for columns in (4, 8, 16, 32, 64)]
    return [("xla", ()), ("rewritten", ()), ("pallas_gpu", ()), *(("pallas_gpu", each) for each in blocks)]


def repeated(function: Callable[..., jax.Array], times: int) -> Callable[..., jax.Array]:
    """A program that calls a function several times in turn.

    One value of each result goes into the next call's first operand, or the compiler would see that all calls are the
    same and make them one. The barriers keep it from computing that value alone, and from moving its insertion into
    the function.
    """

    def run(x: jax.Array, *others: jax.Array) -> jax.Array:
        out = function(x, *others)
        for _ in range(times - 1):
            out = lax.optimization_barrier(out)
            x = lax.optimization_barrier(x.at[(0,) * x.ndim].set(out[(0,) * out.ndim]))
            out = function(x, *others)
        return out

    return jax.jit(run)


def times(
    operation: str,
    operands: list[jax.ShapeDtypeStruct],
    options: Mapping[str, Any],
    implementations: list[Implementation],
) -> dict[Implementation, float]:
    """Microseconds of each implementation that serves the call, taking turns.

    Raises:
      ArithmeticError: one of them is wrong.
    """
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=operand.shape), operand.dtype) for operand in operands]
    with jax.default_matmul_precision("highest"):
        plain = dispatch.implementation(operation, "xla")
        expected = np.asarray(jax.jit(partial(plain, **options))(*(a.astype(jnp.float32) for a in arrays)))
    programs = {}
    for name, blocks in implementations:
        try:
            function = partial(dispatch.implementation(operation, name), **options, **dict(blocks))
            out = np.asarray(jax.jit(function)(*arrays), np.float32)
        except dispatch.Refused:
            continue
        worst = np.abs(out - expected).max() / np.abs(expected).max()
        if not worst <= TOLERANCE:
            raise ArithmeticError(
                f"{operation} of {list(operands[0].shape)} by {name} {dict(blocks)} is off by {worst:.2g}"
            )
        programs[name, blocks] = repeated(function, CALLS).lower(*arrays).compile()
    taken = {implementation: [] for implementation in programs}
    for _ in range(ROUNDS):
        for implementation, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            taken[implementation].append((time.perf_counter() - start) / CALLS * 1e6)
    return {implementation: statistics.median(values) for implementation, values in taken.items()}


def choice(measured: Mapping[Implementation, float]) -> dict[str, Any] | None:
    """The table's entry for a call: what beats XLA by more than chance does, or None."""
    best = min(measured, key=measured.__getitem__)
    name, blocks = best
    if name == "xla" or measured["xla", ()] < measured[best] * MARGIN:
        return None
    return {"implementation": name} | ({"blocks": dict(blocks)} if blocks else {})


FIELDS = ("case", "model", "operation", "xla us", "rewritten us", "pallas_gpu us", "blocks")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times our GPU kernels against XLA on the GPU of this machine."""

    tune: bool = False
    """Enter what wins in kernels/tuned/cuda.json, from where `zoo.kernels` takes its choices."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.gpu")
    try:
        gpu = jax.devices("gpu")[0]
    except RuntimeError as error:
        raise UserError(f"no GPU that JAX can use: {error}") from error
    jax.config.update("jax_default_device", gpu)
    choices, rows = {}, []
    for case in (case for case in (*POOL, *CONV) if "pallas_gpu" in dispatch.OPERATIONS[case.operation].modules):
        operands, options = case.resolved()
        measured = times(case.operation, operands, options, candidates(case.operation, operands))
        ours = min((key for key in measured if key[0] == "pallas_gpu"), key=measured.__getitem__, default=None)
        cells = [f"{measured[key]:.1f}" if key in measured else "" for key in (("xla", ()), ("rewritten", ()), ours)]
        blocks = " ".join(f"{name}={size}" for name, size in ours[1]) if ours else "refused"
        row = dict(zip(FIELDS, (case.name, case.model, case.operation, *cells, blocks), strict=True))
        rows.append(row)
        print(*row.values(), sep=" | ", flush=True)
        if entry := choice(measured):
            choices[f"{case.operation} {dispatch.describe(operands, options)}"] = entry
    kind = gpu.device_kind
    by = f"medians of {ROUNDS} rounds on one {kind}; jax {jax.__version__}; {datetime.date.today().isoformat()}"
    name = re.sub(r"[^a-z0-9]+", "-", kind.lower())
    tables.write(tables.RESULTS / f"{name}-gpu.csv", by, FIELDS, rows)
    if arguments.tune:
        tables.write_choices("cuda", kind, by, choices)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.gpu", main)
