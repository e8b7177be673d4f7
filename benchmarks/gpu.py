"""Times our GPU kernels against XLA on the GPU of this machine, and enters those that win in `kernels/tuned/cuda.json`.

    python -m benchmarks.gpu            a table of all cases, saved in benchmarks/results/
    python -m benchmarks.gpu --tune     and the winners become the default on GPUs

Every case of the models (`cases.py`) that a kernel serves is first checked against XLA in float32, then timed in all
block sizes, taking turns with XLA's own and with the plain-JAX reformulation. Times are medians.
"""

# pyright: reportMissingImports=false
# zoo.kernels lies in kernels/, which pyright does not know.
import argparse
import csv
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.kernels import dispatch
from zoo.kernels.arguments import pairs, per_axis
from zoo.kernels.case import Case
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.conv.gpu import TILES
from zoo.kernels.pool.cases import CASES as POOL

RESULTS = Path(__file__).parent / "results"
TABLE = Path(dispatch.__file__).parent / "tuned" / "cuda.json"
ROUNDS = 11
CALLS = 20  # in one program, so that Python's share of the time is small
MARGIN = 1.03  # a kernel that wins by less may lose on another day
TOLERANCE = 1e-2  # of the largest value: bfloat16 keeps 8 bits

type Implementation = tuple[str, tuple[tuple[str, int], ...]]  # name and block sizes


def resolved(case: Case) -> tuple[list[jax.ShapeDtypeStruct], dict[str, Any]]:
    """What a case's public function hands to an implementation: operands with one batch axis, options written out."""
    (*batch_and_spatial, channels), *others = case.shapes
    window = case.options["window"] if case.operation.endswith("pool") else others[0][:-2]
    axes = len(window)
    batch, spatial = batch_and_spatial[:-axes], batch_and_spatial[-axes:]
    is_conv = case.operation == "conv"
    strides = per_axis(case.options.get("strides", 1 if is_conv else window), axes, "strides")
    dilation = per_axis(case.options.get("dilation", 1), axes, "dilation")
    padding = pairs(case.options.get("padding", "SAME" if is_conv else "VALID"), spatial, window, strides, dilation)
    options: dict[str, Any] = {"strides": strides, "padding": padding}
    if is_conv:
        options |= {"dilation": dilation, "groups": case.options.get("groups", 1)}
    else:
        options = {"window": tuple(window)} | options
    shapes = [(int(np.prod(batch)), *spatial, channels), *others]
    return [jax.ShapeDtypeStruct(shape, jnp.dtype(case.dtype)) for shape in shapes], options


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help=f"write the winners to {TABLE.name}")
    tune = parser.parse_args(arguments).tune
    try:
        kind = jax.devices("gpu")[0].device_kind
    except RuntimeError:
        print("benchmarks.gpu needs a GPU that JAX can use, and there is none here", file=sys.stderr)
        sys.exit(2)
    jax.config.update("jax_default_device", jax.devices("gpu")[0])
    choices, rows = {}, []
    for case in (case for case in (*POOL, *CONV) if "pallas_gpu" in dispatch.OPERATIONS[case.operation].modules):
        operands, options = resolved(case)
        measured = times(case.operation, operands, options, candidates(case.operation, operands))
        kernels = {key: value for key, value in measured.items() if key[0] == "pallas_gpu"}
        ours = min(kernels, key=kernels.__getitem__) if kernels else None
        row = {
            "case": case.name,
            "model": case.model,
            "operation": case.operation,
            "xla us": round(measured["xla", ()], 1),
            "rewritten us": round(measured["rewritten", ()], 1) if ("rewritten", ()) in measured else "",
            "pallas_gpu us": round(measured[ours], 1) if ours else "",
            "blocks": " ".join(f"{name}={size}" for name, size in ours[1]) if ours else "refused",
        }
        rows.append(row)
        print(*row.values(), sep=" | ", flush=True)
        if entry := choice(measured):
            choices[f"{case.operation} {dispatch.describe(operands, options)}"] = entry
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', kind.lower())}-gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    if tune:
        TABLE.write_text(json.dumps({"device": kind, "choices": choices}, indent=1) + "\n")


if __name__ == "__main__":
    main()
