"""`python -m benchmarks.models_static --model i3d,r3d_18`: whole models on a TPU by the static clock, XLA and the zoo.

Each model is compiled twice for one chip, in bfloat16: with plain lax everywhere, and with the implementations that
`zoo.kernels` chooses. Compiling takes minutes each, so the table, `benchmarks/results/<chip>-models.csv`, is kept and
only what is missing is measured, unless `--again` says otherwise.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from rich.console import Console

import zoo
from benchmarks import tables
from benchmarks.kernels import header, ready
from benchmarks.tpu_static import Estimate, EstimateError, estimate
from zoo import command_line
from zoo.errors import UserError
from zoo.kernels import dispatch

# Clips as the guides to the published networks have them; batches that fill a chip in inference.
INPUTS = {
    "i3d": (4, 16, 224, 224, 3),
    "r3d_18": (8, 16, 112, 112, 3),
    "r2plus1d_18": (8, 16, 112, 112, 3),
    "cnn_2d": (16, 224, 224, 3),
    "efficientnet_lite0": (16, 224, 224, 3),
}
FIELDS = (
    "model",
    "pass",
    "input",
    "xla",
    "zoo",
    "ratio",
    "xla_peak_share",
    "zoo_peak_share",
    "compile_seconds",
    "dearest",
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Estimates whole models on a TPU without a TPU."""

    model: str = ",".join(INPUTS)
    """Architectures, with commas between."""
    chip: str = "v5e"
    """The chip to compile for."""
    train: bool = False
    """A training step in place of inference."""
    again: bool = False
    """Measure what the table has already, too."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.models_static")
    ready(arguments.chip, _file(arguments.chip))
    console = Console(width=160)
    names = arguments.model.split(",")
    for name in names:
        if name not in INPUTS:
            raise UserError(f"no input is known for {name!r}; there are {', '.join(INPUTS)}")
    for name in names:
        what = "training step" if arguments.train else "inference"
        row = {"model": name, "pass": what, "input": "x".join(map(str, INPUTS[name]))}
        row |= read(arguments.chip).get((name, what), {})
        for column in ("xla", "zoo"):
            if row.get(column) and not arguments.again:
                continue
            with console.status(f"{name}, {what}, {column}"):
                row |= measure(name, column, arguments.chip, train=arguments.train)
            if row.get("xla") and row.get("zoo"):
                row["ratio"] = f"{float(row['xla']) / float(row['zoo']):.2f}"
            write(arguments.chip, row)
        console.print({field: row.get(field, "") for field in FIELDS})


def measure(name: str, column: str, chip: str, *, train: bool) -> dict[str, str]:
    """The cells of one column."""
    function, shapes = program(name, train=train)
    chosen = dispatch.prefer("xla") if column == "xla" else contextlib.nullcontext()
    with chosen:
        try:
            cost: Estimate = estimate(function, *shapes, chip=chip, flops=flops(name, train=train))
        except EstimateError as error:
            raise UserError(f"{name} does not compile for {chip}: {error}") from error
    dearest = ", ".join(f"{operation} {cycles / cost.cycles:.0%}" for operation, cycles in cost.by_operation[:6])
    cells = {column: f"{cost.microseconds:.0f}", f"{column}_peak_share": f"{cost.peak_share:.3f}"}
    return cells | {"compile_seconds": f"{cost.compile_seconds:.0f}", "dearest": f"{column}: {dearest}"}


def program(name: str, *, train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A function of the clips and the model's arrays, and their shapes: parameters and statistics in bfloat16."""
    abstract = nnx.eval_shape(lambda: zoo.create(name))
    (abstract.train if train else abstract.eval)()
    graph, params, statistics, rest = nnx.split(abstract, nnx.Param, nnx.BatchStat, ...)
    narrow = functools.partial(jax.tree.map, lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16))
    x = jax.ShapeDtypeStruct(INPUTS[name], jnp.bfloat16)

    def others():
        """Counters and keys of dropout: no part of what is measured."""

        def made(leaf):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return jax.random.key(0) if is_key else jnp.zeros(leaf.shape, leaf.dtype)

        return jax.tree.map(made, rest)

    def infer(x, params, statistics):
        return nnx.merge(graph, params, statistics, others())(x)

    def step(x, labels, params, statistics):
        def loss(params):
            model = nnx.merge(graph, params, statistics, others(), copy=True)
            logits = model(x).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), nnx.state(
                model, nnx.BatchStat
            )

        gradients, after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients), after

    labels = jax.ShapeDtypeStruct((INPUTS[name][0],), jnp.int32)
    if train:
        return step, (x, labels, narrow(params), narrow(statistics))
    return infer, (x, narrow(params), narrow(statistics))


@functools.cache
def flops(name: str, *, train: bool) -> float:
    """Of the model's products, three times in training, as XLA counts them in the plain program on a CPU."""
    function, shapes = program(name, train=False)
    with dispatch.prefer("xla"):
        lowered = jax.jit(function).lower(*shapes)
    return (3 if train else 1) * float((lowered.cost_analysis() or {})["flops"])


def _file(chip: str) -> Path:
    return tables.RESULTS / f"{chip}-models.csv"


def read(chip: str) -> dict[tuple[str, ...], dict[str, str]]:
    return tables.read(_file(chip), "model", "pass")


def write(chip: str, row: dict[str, str]) -> None:
    """The table with this row in it, in place of the file that was there."""
    table = read(chip) | {(row["model"], row["pass"]): row}
    tables.write(_file(chip), header(chip), FIELDS, (table[key] for key in sorted(table)))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    command_line.run("python -m benchmarks.models_static", main)
