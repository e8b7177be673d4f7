"""Convolution on TPUs as an implicit matrix product, with what may follow it: bias, residual, activation."""

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..dispatch import Refused
from ..pallas_tpu import call
from ..reference import ACTIVATIONS
from . import tpu_stem
from .tpu_geometry import Geometry, Pairs, geometry
from .tpu_implicit_gemm import BUDGET, LIMIT, Blocks, Plan, fill, products, quotient, up
from .tpu_stem_plan import MOST_CHANNELS

# Outputs of one product, in lines. Sums of so many do not fit into registers, but loading and storing them costs less
# than giving the matrix unit the kernel more often: for some layers of ResNet-18 and R3D-18, of 224 to 1792 lines these
# were the fastest on v5e and v6e. `benchmarks.kernel_blocks` tries others for each layer.
_LINES = 1792
# Cycles that a step of the grid costs beside its work, and bytes that the memory gives in a cycle (v5e; v6e has twice).
_STEP_CYCLES, _BYTES_PER_CYCLE = 500, 546


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    **blocks: Any,
) -> jax.Array:
    """Convolution of x `[N, *spatial, C]` with kernel `[*window, C, F]` to `[N, *spatial', F]` in x's dtype.

    Few channels go to `tpu_stem` where it serves them. `blocks` are those of `tpu_stem.conv` or `conv_and_more`.

    Raises:
      Refused: groups, nothing to compute, or not even one row fits into VMEM.
    """
    if groups != 1:
        raise Refused(f"the dense kernel has no groups, got groups={groups}")
    if x.shape[-1] <= MOST_CHANNELS and blocks.keys() <= {"columns_in_lanes", "batch_inside"}:
        options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
        with contextlib.suppress(Refused):
            return tpu_stem.conv(x, kernel, **options, **blocks)
    return conv_and_more(x, kernel, strides=strides, padding=padding, dilation=dilation, **blocks)


def conv_and_more(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    residual: jax.Array | None = None,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    activation: str | None = None,
    inside: int | None = None,
    frames: int | None = None,
    rows: int | None = None,
    columns: int | None = None,
    features: int | None = None,
    fold: int | None = None,
    lines: int | None = None,
    spread: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
) -> jax.Array:
    """`activation(conv(x, kernel) + bias + residual)` in x's dtype, everything before that in float32.

    Args:
      x: `[N, *spatial, C]`, one to three spatial axes, float32 or bfloat16.
      kernel: `[*window, C, F]`.
      bias: `[F]` or None.
      residual: as the result, or None.
      inside: 1 for the batch inside the columns, 0 for outside; None: inside if it is a multiple of 8.
      frames, rows, columns, features: outputs of one step of the grid.
      fold: rows of outputs side by side in one product.
      lines: outputs of one product.
      spread, size: the features are those of `spread` neighbours in each axis, `[*spread, F / prod(spread)]`, which are
        written apart: the result has `size` pixels, the last of `spread` times as many cut off.

    Raises:
      Refused: nothing to compute, or not even one row fits into VMEM.
    """
    window, out_features = kernel.shape[:-2], kernel.shape[-1]
    if spread is None:
        spread = (1,) * len(window)
        size = tuple(
            (pixels + sum(pad) - (reach - 1) * rate - 1) // stride + 1
            for pixels, pad, reach, rate, stride in zip(x.shape[1:-1], padding, window, dilation, strides, strict=True)
        )
    assert size is not None
    apart = math.prod(spread)
    g = geometry(
        x,
        window,
        out_features,
        strides=strides,
        padding=padding,
        dilation=dilation,
        inside=inside,
        merge=apart == 1,
    )
    if apart > 1:
        features, fold = out_features, 1
        lines = lines or max(16, _LINES * 128 // up(out_features, 128))
    plan = Plan(g, choose(g, frames, rows, columns, features, fold, lines, residual is not None))
    b = plan.blocks
    missing = (1,) * (3 - len(window))
    spread3: Any = (*missing, *spread) if apart > 1 else (1, 1, 1)
    size3 = (*missing, *size) if apart > 1 else g.out
    width = b.columns * spread3[2]
    if apart > 1 and not g.is_inside and width != size3[2] and width % 8:
        # The last columns would be cut off within a block, which the compiler takes in whole tiles of 8 only.
        raise Refused(f"{spread3[2]} neighbours each make {width} columns, of which {size3[2]} are wanted")
    operands = [g.view(x, g.size), plan.matrix(kernel.astype(x.dtype))]
    specs = [plan.x_spec, plan.matrix_spec]
    if bias is not None:
        operands.append(bias.astype(jnp.float32)[None])
        specs.append(pl.BlockSpec((1, b.features), lambda f, n, w, d, h: (0, f)))
    out_spec = plan.out_spec(b.frames * spread3[0], b.rows * spread3[1], b.columns * spread3[2], b.features // apart)
    if residual is not None:
        operands.append(g.view(residual.astype(x.dtype), g.out))
        specs.append(out_spec)
    y = call(
        partial(_kernel, plan, spread3, activation, bias is not None, residual is not None),
        out_shape=jax.ShapeDtypeStruct(plan.out_shape(size3, g.features // apart), x.dtype),
        grid=plan.grid,
        in_specs=specs,
        out_specs=out_spec,
        scratch_shapes=plan.scratch_shapes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",) * len(plan.grid), vmem_limit_bytes=LIMIT
        ),
        name="conv",
    )(*operands)
    return g.restore(y, (x.shape[0], *size, g.features // apart))


def choose(
    g: Geometry,
    frames: int | None,
    rows: int | None,
    columns: int | None,
    features: int | None,
    fold: int | None,
    lines: int | None,
    has_residual: bool,
) -> Blocks:
    """Blocks for a convolution: those given as far as they fit, the others by estimated time.

    Raises:
      Refused: not even one row fits into VMEM.
    """
    d, h, w = g.out
    features = _lanes(g.features, features or 256)
    if fold is None:
        # Two rows of at most 64 features fill 128 columns of a matrix unit.
        fold = 2 if 2 * g.features <= 128 and g.window[1] > 1 else 1
    fold = max(1, min(fold, h)) if features == g.features else 1
    least_columns = divisors(w, g) if g.window[2] == 1 and g.strides[2] == 1 and g.padding[2] == (0, 0) else [w]
    best = None
    for columns_ in [columns] if columns in least_columns else least_columns:
        for frames_ in [min(frames, d)] if frames else sorted({1, 2, 4, 8, d} & set(range(1, d + 1))):
            for rows_ in [min(rows, h)] if rows else _row_counts(h, fold):
                rows_ = max(fold, rows_ // fold * fold)
                blocks = Blocks(frames_, rows_, columns_, features, fold, lines or _LINES, rows_)
                plan = Plan(g, blocks)
                if plan.bytes + (4 if has_residual else 2) * plan.out_bytes > BUDGET:
                    continue
                cost = estimated_cycles(plan)
                if best is None or cost < best[0]:
                    best = cost, blocks
    if best is None:
        raise Refused(f"a row of {w} x {g.inside} pixels with {g.channels} channels does not fit into VMEM")
    return best[1]


def _lanes(features: int, most: int) -> int:
    """Features of a block: all, or a multiple of 128."""
    return features if features <= most else max(128, most // 128 * 128)


def divisors(columns: int, g: Geometry) -> list[int]:
    """Into how many columns rows may be cut, where nothing beside a column is needed for it."""
    lines = 1 if g.is_inside else 16
    return [n for n in range(1, columns + 1) if columns % n == 0 and (n % lines == 0 or n == columns)]


def _row_counts(rows: int, fold: int) -> list[int]:
    """Every number of rows that cuts them into a different number of blocks."""
    return sorted({-(-rows // blocks) for blocks in range(1, rows + 1)} | {min(rows, fold)})


def estimated_cycles(plan: Plan) -> float:
    """An estimate by which blocks are compared: copies overlap products, but for the first and the last step."""
    g, b = plan.geometry, plan.blocks
    steps = math.prod(plan.grid)
    x_bytes = plan.bytes_of_x
    matrix = len(plan.taps) * g.channels * b.fold * b.features * g.dtype.itemsize
    lines = b.frames * b.rows * b.columns * g.inside
    tiles = -(-len(plan.taps) * g.channels // 128) * -(-b.fold * b.features // 128) / b.fold
    product = lines * tiles / 4 + plan.planes * math.prod(plan.seen) * g.inside * -(-g.channels // 128) / 16 * 1.5
    copy = (x_bytes + plan.out_bytes) / _BYTES_PER_CYCLE
    edges = (x_bytes + matrix + plan.out_bytes) / _BYTES_PER_CYCLE
    return edges + steps * (max(product, copy) + _STEP_CYCLES)


def _kernel(
    plan: Plan,
    spread: tuple[int, int, int],
    activation: str | None,
    has_bias: bool,
    has_residual: bool,
    x_ref,
    matrix,
    *others,
) -> None:
    *added, out, scratch, wide = others
    bias = added[0] if has_bias else None
    residual = added[-1] if has_residual else None
    b = plan.blocks
    fill(plan, x_ref, scratch, wide)
    units = b.rows // b.fold // plan.group

    def some_rows(index: Any, carry: Any) -> Any:
        d, unit = quotient(index, units) if b.frames > 1 else (0, index)
        for low, count in chunks(plan):
            sums = products(plan, scratch, matrix, d, unit * plan.group, low, count)
            if math.prod(spread) > 1:
                store_apart(plan, spread, out, d, unit * plan.group, low, count, sums)
                continue
            for f in range(b.fold):
                value = sums[:, f * b.features : (f + 1) * b.features]
                store(plan, out, d, unit * (plan.group * b.fold) + f, low, count, value, bias, residual, activation)
        return carry

    lax.fori_loop(0, b.frames * units, some_rows, 0)


def chunks(plan: Plan) -> list[tuple[int, int]]:
    """A row cut into whole tiles and whole columns: first line and how many."""
    lines = plan.blocks.columns * plan.geometry.inside
    unit = math.lcm(16, plan.geometry.inside)
    count = up(lines, max(plan.blocks.lines // unit * unit, unit)) // max(plan.blocks.lines // unit * unit, unit)
    each = up(up(lines, count) // count, unit)
    return [(low, min(each, up(lines - low, 16))) for low in range(0, lines, each)]


def store(
    plan: Plan, out, d, row, low: int, count: int, value: jax.Array, bias, residual, activation: str | None
) -> None:
    """Adds, activates and stores sums `[group * count, features]` of rows `row`, `row + fold`, ... of a frame."""
    g, b = plan.geometry, plan.blocks
    n = plan.group
    if bias is not None:
        value = value + bias[...]
    columns = min(low + count, b.columns * g.inside) // g.inside - low // g.inside
    value = value.reshape(n, count, b.features)[:, : columns * g.inside]
    for i in range(n):
        where = (d, row + i * b.fold, pl.ds(low // g.inside, columns))
        lines = value[i]
        if g.is_inside:
            lines = lines.reshape(columns, g.inside, b.features)
        else:
            where = (0, *where)
        if residual is not None:
            lines = lines + residual[where].astype(jnp.float32)
        out[where] = ACTIVATIONS[activation](lines).astype(out.dtype)


def store_apart(plan: Plan, spread: tuple[int, int, int], out, d, row, low: int, count: int, sums: jax.Array) -> None:
    """Stores sums `[group * count, spread features]` of rows from `row` on, each pixel's where its neighbours are."""
    g, b = plan.geometry, plan.blocks
    begin, end = low // g.inside, min(low + count, b.columns * g.inside) // g.inside
    features = b.features // math.prod(spread)
    sums = sums.reshape(plan.group, count, b.features)[:, : (end - begin) * g.inside]
    for i in range(plan.group):
        for phase in range(spread[0] * spread[1]):
            at = (d * spread[0] + phase // spread[1], (row + i) * spread[1] + phase % spread[1])
            parts = [
                sums[i, :, (phase * spread[2] + p) * features :][:, :features].astype(out.dtype)
                for p in range(spread[2])
            ]
            if g.is_inside:
                parts = [part.reshape(end - begin, g.batch, features) for part in parts]
                # Whole pixels follow each other: nothing is moved.
                both = jnp.stack(parts, 1).reshape(-1, g.batch, features)
                out[(*at, pl.ds(begin * spread[2], both.shape[0]))] = both
            else:
                both = jnp.stack([part.astype(jnp.float32) for part in parts], 1).reshape(-1, features)
                out[(0, *at, pl.ds(begin * spread[2], both.shape[0]))] = both.astype(out.dtype)
