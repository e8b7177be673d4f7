"""The weight gradient of a convolution on TPUs: the cotangent, turned, times what each tap of the window saw."""

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
from .tpu import chunks, divisors, estimated_cycles
from .tpu_geometry import Geometry, Pairs, geometry
from .tpu_implicit_gemm import BUDGET, LIMIT, Blocks, Plan, fill, quotient, up, windows

# Pixels of one product. Each product adds to the whole gradient, which is loaded and stored for that.
_LINES = 896
# A gradient of more values is computed in parts of 128 features: writing it takes longer than turning g again.
_WHOLE = 1 << 20


def conv_weight_gradient(
    x: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    inside: int | None = None,
    frames: int | None = None,
    rows: int | None = None,
    features: int | None = None,
    lines: int | None = None,
) -> jax.Array:
    """What a cotangent g `[N, *spatial', F]` of the convolution of x `[N, *spatial, C]` means for its kernel.

    The gradient stays in VMEM, turned, `[F, taps * C]`, while the blocks of the batch pass. A pixel's lines are turned
    in g alone, once, and not in what the taps see.

    Args:
      x: `[N, *spatial, C]`, one to three spatial axes, float32 or bfloat16.
      g: `[N, *spatial', F]`.
      window: of the kernel.
      inside: 1 for the batch inside the columns, 0 for outside; None: inside if it is a multiple of 8.
      frames, rows, features: of g in one step of the grid; frames and rows are cut to divisors of what there are.
      lines: pixels of one product.

    Returns:
      `[*window, C, F]`, float32.

    Raises:
      Refused: groups, nothing to compute, or not even one row, or 128 features of the gradient, fit into VMEM.
    """
    if groups != 1:
        raise Refused(f"the dense kernel has no groups, got groups={groups}")
    out_features = g.shape[-1]
    it = geometry(x, window, out_features, strides=strides, padding=padding, dilation=dilation, inside=inside)
    plan = _choose(it, frames, rows, features, lines or _LINES)
    b = plan.blocks
    depth = len(plan.taps) * it.channels
    out = call(
        partial(_kernel, plan),
        out_shape=jax.ShapeDtypeStruct((depth, out_features), jnp.float32),
        grid=plan.grid,
        in_specs=[plan.x_spec, plan.out_spec(b.frames, b.rows, b.columns)],
        out_specs=pl.BlockSpec((depth, b.features), lambda f, n, w, d, h: (0, f)),
        scratch_shapes=[*plan.scratch_shapes, pltpu.VMEM((b.features, depth), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",) * len(plan.grid), vmem_limit_bytes=LIMIT
        ),
        name="conv_weight_gradient",
    )(it.view(x, it.size), it.view(g.astype(x.dtype), it.out))
    return out.reshape(*window, it.channels, out_features)


def _choose(g: Geometry, frames: int | None, rows: int | None, features: int | None, lines: int) -> Plan:
    d, h, w = g.out
    depth = g.window[0] * g.window[1] * g.window[2] * up(g.channels, 128)
    # In parts, all but the last of which are written while the next is computed.
    wanted = features or (128 if g.features * depth > _WHOLE else 512)
    most = min(wanted, (BUDGET // 2) // (3 * 4 * depth) // 128 * 128)
    features = g.features if g.features <= most else most
    if features < min(g.features, 128):
        raise Refused(
            f"a gradient of {depth} x {min(g.features, 128)} float32 values does not fit into VMEM three times"
        )
    is_free = g.window[2] == 1 and g.strides[2] == 1 and g.padding[2] == (0, 0)
    best = None
    for columns in divisors(w, g) if is_free else [w]:
        for frames_ in [n for n in range(1, min(frames or 16, d) + 1) if d % n == 0]:
            for rows_ in [n for n in range(1, min(rows or h, h) + 1) if h % n == 0]:
                plan = Plan(g, Blocks(frames_, rows_, columns, features, 1, lines, rows_))
                if plan.bytes + 2 * plan.out_bytes + 3 * 4 * depth * up(features, 128) > BUDGET:
                    continue
                # The pixels are the depth of the product, which is computed in tiles of 128.
                cost = estimated_cycles(plan) * max(up(plan.group * n, 128) / (plan.group * n) for _, n in chunks(plan))
                if best is None or cost < best[0]:
                    best = cost, plan
    if best is None:
        raise Refused(f"a row of {w} x {g.inside} pixels with {g.channels} channels does not fit into VMEM")
    return best[1]


def _kernel(plan: Plan, x_ref, g_ref, out, scratch, wide, total) -> None:
    it, b = plan.geometry, plan.blocks
    places = [pl.program_id(axis) for axis in range(5)]
    fill(plan, x_ref, scratch, wide)

    @pl.when(sum(places[1:]) == 0)
    def _() -> None:
        total[...] = jnp.zeros(total.shape, jnp.float32)

    units = b.rows // plan.group

    def some_rows(index: Any, carry: Any) -> Any:
        d, unit = quotient(index, units) if b.frames > 1 else (0, index)
        for low, count in chunks(plan):
            begin, end = low // it.inside, min(low + count, b.columns * it.inside) // it.inside
            rows = []
            for i in range(plan.group):
                where = (d, unit * plan.group + i, pl.ds(begin, end - begin))
                row = g_ref[where] if it.is_inside else g_ref[(0, *where)]
                row = row.reshape(-1, b.features)
                missing = count - row.shape[0]
                rows.append(jnp.pad(row, ((0, missing), (0, 0))) if missing else row)
            turned = (jnp.concatenate(rows, 0) if len(rows) > 1 else rows[0]).T
            seen = windows(plan, scratch, d, unit * plan.group, low, count)
            per_frame = len(seen) // it.window[0]
            for first in range(0, len(seen), per_frame):
                some = seen[first : first + per_frame]
                at = pl.ds(first * it.channels, per_frame * it.channels)
                lines = jnp.concatenate(some, 1) if len(some) > 1 else some[0]
                total[:, at] += jnp.dot(turned, lines, preferred_element_type=jnp.float32)
        return carry

    lax.fori_loop(0, b.frames * units, some_rows, 0)

    @pl.when(
        jnp.logical_and(*(_is_last(places[first:last], plan.grid[first:last]) for first, last in ((1, 3), (3, 5))))
    )
    def _() -> None:
        out[...] = total[...].T


def _is_last(places: Sequence[Any], grid: Sequence[int]) -> Any:
    return sum(places) == sum(grid) - len(grid)
