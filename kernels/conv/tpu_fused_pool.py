"""Convolution, bias, residual, activation and max-pool in one TPU kernel: nothing between them leaves the chip."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..dispatch import Refused
from ..pallas_tpu import call
from ..reference import ACTIVATIONS
from .tpu import chunks, conv_and_more, estimated_cycles
from .tpu_geometry import Geometry, Pairs, geometry
from .tpu_implicit_gemm import BUDGET, LIMIT, Blocks, Plan, fill, products, up

# Outputs of one product, in lines, as in `tpu.py`.
_LINES = 448


def conv_bias_act_pool(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None = None,
    *,
    activation: str | None,
    strides: Sequence[int],
    padding: Pairs,
    window: Sequence[int] | None,
    pool_strides: Sequence[int] | None,
    pool_padding: Pairs | None,
    inside: int | None = None,
    rows: int | None = None,
    lines: int | None = None,
    fold: int | None = None,
) -> jax.Array:
    """`max_pool(activation(conv(x, kernel) + bias + residual))` of x `[N, *spatial, C]`, in x's dtype.

    Args:
      x: `[N, *spatial, C]`, float32 or bfloat16; with pooling of one or two spatial axes.
      kernel: `[*window, C, F]`.
      bias: `[F]`.
      residual: as the convolution's result, or None.
      window: of the pool, or None for no pooling.
      inside: 1 for the batch inside the columns, 0 for outside; None: inside if it is a multiple of 8.
      rows: pooled rows of one step of the grid.
      lines: outputs of one product.
      fold: rows of outputs side by side in one product, without pooling only.

    Raises:
      Refused: 3D pooling, residual and pooling at once, pools of padding alone, or not even one row fits into VMEM.
    """
    dilation = (1,) * len(strides)
    if window is None:
        options = {"strides": strides, "padding": padding, "dilation": dilation, "activation": activation}
        return conv_and_more(x, kernel, bias, residual, inside=inside, rows=rows, lines=lines, fold=fold, **options)
    assert pool_strides is not None
    assert pool_padding is not None
    if len(window) > 2:
        raise Refused(f"the fused pool has up to two axes, got a window of {tuple(window)}")
    if residual is not None:
        raise Refused("the fused pool adds no residual")
    g = geometry(
        x, kernel.shape[:-2], kernel.shape[-1], strides=strides, padding=padding, dilation=dilation, inside=inside
    )
    lead = 2 - len(window)
    pool = _Pool((1,) * lead + tuple(window), (1,) * lead + tuple(pool_strides), ((0, 0),) * lead + tuple(pool_padding))
    pooled = pool.out(g.out[1:])
    if min(pooled) < 1:
        raise Refused(f"no window of {tuple(window)} fits into {g.out[1:]}")
    plan = _choose(g, pool, pooled, rows, lines or _LINES)
    b = plan.blocks
    rows = (b.rows - pool.window[0]) // pool.strides[0] + 1
    out_spec = plan.out_spec(1, rows, pooled[1])
    row = (pool.seen(pooled)[1], g.batch, b.features) if g.is_inside else (pool.seen(pooled)[1], b.features)
    y = call(
        partial(_kernel, plan, pool, pooled, activation),
        out_shape=jax.ShapeDtypeStruct(plan.out_shape((1, *pooled)), x.dtype),
        grid=plan.grid,
        in_specs=[
            plan.x_spec,
            plan.matrix_spec,
            pl.BlockSpec((1, b.features), lambda f, n, w, d, h: (0, f)),
        ],
        out_specs=out_spec,
        scratch_shapes=[
            *plan.scratch_shapes,
            pltpu.VMEM((b.rows, *row), jnp.float32),
            None if g.is_inside else pltpu.VMEM(row, jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",) * len(plan.grid), vmem_limit_bytes=LIMIT
        ),
        name="conv_bias_act_pool",
    )(g.view(x, g.size), plan.matrix(kernel.astype(x.dtype)), bias.astype(jnp.float32)[None])
    return g.restore(y, (x.shape[0], *pooled[lead:], g.features))


@dataclass(frozen=True)
class _Pool:
    """Over rows and columns."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs

    def out(self, size: Sequence[int]) -> tuple[int, ...]:
        each = zip(size, self.padding, self.window, self.strides, strict=True)
        return tuple((size + sum(pad) - window) // stride + 1 for size, pad, window, stride in each)

    def seen(self, pooled: Sequence[int]) -> tuple[int, ...]:
        """Rows and columns before pooling, padding included, that so many after it see."""
        each = zip(pooled, self.strides, self.window, strict=True)
        return tuple((count - 1) * stride + window for count, stride, window in each)


def _choose(g: Geometry, pool: _Pool, pooled: Sequence[int], rows: int | None, lines: int) -> Plan:
    features = g.features if g.features <= 256 else 256
    best = None
    for rows_ in [min(rows, pooled[0])] if rows else range(1, pooled[0] + 1):
        seen = pool.seen((rows_, pooled[1]))
        # Two rows of at most 64 features fill 128 columns of a matrix unit.
        fold = 2 if 2 * g.features <= 128 and seen[0] % 2 == 0 else 1
        hop = rows_ * pool.strides[0]
        plan = Plan(
            g, Blocks(1, seen[0], g.out[2], features, fold, lines, hop, -pool.padding[0][0]), -(-pooled[0] // rows_)
        )
        waiting = seen[0] * up(seen[1] * g.inside, 16) * up(features, 128) * 4
        if plan.bytes + waiting + 2 * plan.out_bytes > BUDGET:
            continue
        cost = estimated_cycles(plan)
        if best is None or cost < best[0]:
            best = cost, plan
    if best is None:
        raise Refused(f"a row of {g.out[2]} x {g.inside} pixels with {g.channels} channels does not fit into VMEM")
    return best[1]


def _kernel(
    plan: Plan, pool: _Pool, pooled: Sequence[int], activation: str | None, x_ref, matrix, bias, out, *scratches
):
    scratch, wide, waiting, row_wide = scratches
    g, b = plan.geometry, plan.blocks
    fill(plan, x_ref, scratch, wide)
    first = pl.program_id(4) * b.hop + b.first
    seen = pool.seen(pooled)[1]
    low_pad = pool.padding[1][0]
    is_padded = sum(map(sum, pool.padding)) > 0 or b.hop * plan.grid[4] > g.out[1]

    if low_pad + g.out[2] < seen or low_pad:

        @pl.when(sum(pl.program_id(axis) for axis in range(5)) == 0)
        def _() -> None:
            waiting[...] = jnp.full(waiting.shape, -jnp.inf, jnp.float32)

    def some_rows(unit: Any, carry: Any) -> Any:
        for low, count in chunks(plan):
            sums = products(plan, scratch, matrix, 0, unit * plan.group, low, count)
            begin, end = low // g.inside, min(low + count, b.columns * g.inside) // g.inside
            end = min(end, seen - low_pad)
            if end <= begin:
                continue
            for f in range(b.fold):
                value = ACTIVATIONS[activation](sums[:, f * b.features : (f + 1) * b.features] + bias[...])
                value = value.reshape(plan.group, count, b.features)[:, : (end - begin) * g.inside]
                for i in range(plan.group):
                    row = unit * (plan.group * b.fold) + i * b.fold + f
                    line = value[i]
                    if is_padded:
                        line = jnp.where((first + row >= 0) & (first + row < g.out[1]), line, -jnp.inf)
                    if g.is_inside:
                        line = line.reshape(end - begin, g.batch, b.features)
                    waiting[row, pl.ds(begin + low_pad, end - begin)] = line
        return carry

    lax.fori_loop(0, b.rows // b.fold // plan.group, some_rows, 0)

    def pool_row(row: Any, carry: Any) -> Any:
        rows = [waiting[row * pool.strides[0] + i] for i in range(pool.window[0])]
        line = reduce(jnp.maximum, rows)
        if g.is_inside:
            columns = [
                reduce(jnp.maximum, [line[k * pool.strides[1] + j] for j in range(pool.window[1])])
                for k in range(pooled[1])
            ]
            out[0, row] = jnp.stack(columns).astype(out.dtype)
        else:
            row_wide[...] = line
            stride = (pool.strides[1],) if pool.strides[1] > 1 else ()
            columns = [row_wide[pl.ds(j, pooled[1], *stride)] for j in range(pool.window[1])]
            out[0, 0, row] = reduce(jnp.maximum, columns).astype(out.dtype)
        return carry

    lax.fori_loop(0, (b.rows - pool.window[0]) // pool.strides[0] + 1, pool_row, 0)
