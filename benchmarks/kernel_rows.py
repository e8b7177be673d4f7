"""What the kernel table measures: for each case its forward pass and gradients, in every formulation."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.tpu_static import CHIPS
from zoo import kernels
from zoo.kernels import dispatch, reference
from zoo.kernels.case import POOLS, Case
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.conv.cases import STEMS
from zoo.kernels.conv_lstm.cases import CASES as CONV_LSTM
from zoo.kernels.depthwise.cases import CASES as DEPTHWISE
from zoo.kernels.pool.cases import CASES as POOL

CASES = (*POOL, *DEPTHWISE, *CONV, *CONV_LSTM)

# XLA in the layout that arrays have here; XLA with the batch beside the channels, which its convolutions like best, at
# no charge for getting there; plain JAX in another form; our kernel; our dense convolutions on such an inner batch.
COLUMNS = ("xla", "xla_batch_inside", "rewritten", "pallas_tpu", "pallas_batch_inside")
INSIDE = {"xla_batch_inside": "xla", "pallas_batch_inside": "pallas_tpu"}


@dataclass(frozen=True)
class Row:
    """One line of the table: `programs` maps a column to a function of arrays of `shapes`.

    `moved` are the operands that cannot be done without, and the results.
    """

    case: Case
    name: str
    operation: str
    key: str
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    programs: dict[str, Callable[..., Any]]
    flops: float
    moved: tuple[jax.ShapeDtypeStruct, ...]

    def floor(self, chip: str) -> float:
        """Microseconds that no program can go below: what has to move once through HBM, or the products."""
        moved = sum(_stored_bytes(array) for array in self.moved)
        return 1e6 * max(moved / CHIPS[chip].bandwidth, self.flops / CHIPS[chip].peak)


def _stored_bytes(array: jax.ShapeDtypeStruct) -> float:
    """Bytes in HBM, where either the last axis fills rows of 128, or the one before it does and the last rows of 8."""
    if array.ndim < 2:
        return math.prod(array.shape) * array.dtype.itemsize
    *others, width, channels = array.shape
    padded = min(width * _up(channels, 128), _up(width, 128) * _up(channels, 8))
    return math.prod(others) * padded * array.dtype.itemsize


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@functools.cache
def rows() -> tuple[Row, ...]:
    """Every row of the table, case by case."""
    made = (_conv_lstm_rows if case.operation.startswith("conv_lstm") else _window_rows for case in CASES)
    return tuple(row for of_case, case in zip(made, CASES, strict=True) for row in of_case(case))


def _window_rows(case: Case) -> Iterator[Row]:
    """Convolution and pooling, as the operations that `zoo.kernels.dispatch` knows, on one folded batch axis."""
    operands, options = case.resolved()
    key = dispatch.describe(operands[: 1 if case.operation in POOLS else 2], options)
    flops = 0.0
    if case.operation.startswith(("conv", "depthwise")):
        flops = 2.0 * math.prod(operands[1].shape[:-1]) * math.prod(_convolved(case, options, operands))

    def row(name: str, operation: str, operands: Sequence[jax.ShapeDtypeStruct], every: dict[str, Any]) -> Row:
        batched = [role == "batch" for role in dispatch.OPERATIONS[operation].operands or ()][: len(operands)]
        out_is_batched = dispatch.OPERATIONS[operation].results == ("batch",)
        programs: dict[str, Callable[..., Any]] = {}
        for column in COLUMNS:
            source = INSIDE.get(column, column)
            if column == "pallas_batch_inside" and not (operation.startswith("conv") and case not in STEMS):
                continue
            if source in dispatch.OPERATIONS[operation].modules:
                function = functools.partial(_implementation, operation, source, every)
                if column in INSIDE:
                    function = functools.partial(_batch_inside, function, batched, out_is_batched)
                programs[column] = function
        result = jax.eval_shape(functools.partial(getattr(reference, operation), **every), *operands)
        # The gradient of max-pooling can do without its second operand, the maxima: XLA does, and so do our kernels.
        read = [operands[0], *operands[2:]] if operation == "max_pool_gradient" else operands
        return Row(case, name, operation, key, tuple(operands), programs, flops, (*read, result))

    for name, operation, of_pass, every in passes(case.operation, operands, options):
        yield row(name, operation, of_pass, every)


def passes(
    operation: str, operands: Sequence[jax.ShapeDtypeStruct], options: Mapping[str, Any]
) -> Iterator[tuple[str, str, list[jax.ShapeDtypeStruct], dict[str, Any]]]:
    """The forward pass of a call and its gradients: name, operation, operands, options."""
    x, *others = operands
    out = jax.eval_shape(functools.partial(getattr(reference, operation), **options), *operands)
    yield "forward", operation, list(operands), dict(options)
    spatial = {"spatial": x.shape[1:-1]}
    if operation == "max_pool":
        yield "gradient", "max_pool_gradient", [x, out, out], dict(options)
    elif operation == "avg_pool":
        yield "gradient", "avg_pool_gradient", [out], {**options, **spatial}
    elif operation != "conv_bias_act_pool":
        yield "input gradient", f"{operation}_input_gradient", [out, others[0]], {**options, **spatial}
        window = {"window": others[0].shape[:-2]}
        yield "weight gradient", f"{operation}_weight_gradient", [x, out], {**options, **window}


def _implementation(operation: str, name: str, options: dict[str, Any], *operands: jax.Array, **blocks: int):
    return dispatch.implementation(operation, name)(*operands, **options, **blocks)


def _batch_inside(function, batched: Sequence[bool], out_is_batched: bool, *operands: jax.Array) -> jax.Array:
    """`function` of operands `[*spatial, N, C]`, which is only another way to write the same memory for XLA."""
    natural = [jnp.moveaxis(a, -2, 0) if there else a for a, there in zip(operands, batched, strict=True)]
    out = function(*natural)
    return jnp.moveaxis(out, 0, -2) if out_is_batched else out


def inside_shapes(row: Row) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes that the columns of `INSIDE` take."""
    if row.case.operation.startswith("conv_lstm"):
        x, *others = row.shapes
        b, t, h, w, c = x.shape
        return (jax.ShapeDtypeStruct((t, h, w, b, c), x.dtype), *others)
    roles = dispatch.OPERATIONS[row.operation].operands or ()
    moved = zip(row.shapes, roles, strict=False)
    return tuple(
        jax.ShapeDtypeStruct((*a.shape[1:-1], a.shape[0], a.shape[-1]), a.dtype) if role == "batch" else a
        for a, role in moved
    )


def _convolved(case: Case, options: dict[str, Any], operands: Sequence[jax.ShapeDtypeStruct]) -> tuple[int, ...]:
    """The shape of the convolution's own result, before any pooling."""
    if case.operation != "conv_bias_act_pool":
        return jax.eval_shape(functools.partial(getattr(reference, case.operation), **options), *operands).shape
    unpooled = options | {"window": None}
    return jax.eval_shape(functools.partial(reference.conv_bias_act_pool, **unpooled), *operands).shape


def _conv_lstm_rows(case: Case) -> Iterator[Row]:
    """A sequence forwards, and forwards and backwards; three layers for a stack."""
    dtype = jnp.dtype(case.dtype)
    shapes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in case.shapes)
    x, kernel, _ = shapes
    features = kernel.shape[-1] // 4
    flops = 2.0 * math.prod(x.shape[:4]) * math.prod(kernel.shape)
    out = jax.ShapeDtypeStruct((*x.shape[:4], features), dtype)
    key = dispatch.describe([x, kernel], {"peephole": None})

    def forward(implementation: str, x, kernel, bias):
        if implementation == "batch inside":
            return _conv_lstm_batch_inside(x, kernel, bias)
        return kernels.conv_lstm(x, kernel, bias, implementation=implementation)[0]

    def train(implementation: str, x, kernel, bias):
        def loss(x, kernel, bias):
            return forward(implementation, x, kernel, bias).astype(jnp.float32).sum()

        return jax.grad(loss, (0, 1, 2))(x, kernel, bias)

    named = {"xla": "xla", "xla_batch_inside": "batch inside", "pallas_tpu": "pallas_tpu"}
    for name, function, passes, results in (("forward", forward, 1, (out,)), ("training step", train, 3, shapes)):
        programs = {column: functools.partial(function, asked) for column, asked in named.items()}
        yield Row(case, name, "conv_lstm", key, shapes, programs, passes * flops, (*shapes, *results))


def _conv_lstm_batch_inside(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """The layout and form that XLA runs fastest: `[T, H, W, B, C]`, one convolution of input and state together."""
    features = kernel.shape[-1] // 4
    numbers = ("HWNC", "HWIO", "HWNC")

    def step(state, frame):
        h, c = state
        both = jnp.concatenate([frame, h], -1)
        gates = jax.lax.conv_general_dilated(both, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        i, f, g, o = jnp.split(gates.astype(jnp.float32) + bias, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype)
        return (h, c), h

    empty = jnp.zeros((*x.shape[1:4], features), x.dtype)
    return jax.lax.scan(step, (empty, empty.astype(jnp.float32)), x)[1]
