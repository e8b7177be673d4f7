"""Average pooling on TPU and its gradient: sums in float32, padding not counted."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..arguments import Pairs
from ..pallas_tpu import call
from .tpu_view import (
    LANES,
    Slide,
    View,
    channels_a_step,
    check_registers,
    fill,
    lane_groups,
    place_back,
    read_taps,
    tiled_bytes,
    view,
    vmem_limit,
)

_STEP_BYTES = 2 << 20


def avg_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    channels: int | None = None,
) -> jax.Array:
    """Mean of each window of x `[N, *spatial, C]`, float32 or bfloat16, over the values that are there.

    Raises:
      Refused: an image of 128 channels is more than VMEM holds, or its rows are too long.
    """
    seen = view(x.shape[1:-1], window, strides, padding)
    return _over_images("avg_pool", _means, seen, seen.into(x), _results(seen), channels)


def avg_pool_gradient(
    g: jax.Array,
    *,
    spatial: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    channels: int | None = None,
) -> jax.Array:
    """What a cotangent g of `avg_pool(x, ...)` means for x `[N, *spatial, C]`: an equal share for each value.

    Raises:
      Refused: an image of 128 channels is more than VMEM holds, or its rows are too long.
    """
    seen = view(spatial, window, strides, padding)
    return _over_images("avg_pool_gradient", _shares, seen, seen.into(g), _sizes(seen), channels)


def _sizes(seen: View) -> tuple[int, int, int]:
    return seen.a.size, seen.b.size, seen.s.size


def _results(seen: View) -> tuple[int, int, int]:
    return seen.a.out, seen.b.out, seen.s.out


def _over_images(name: str, body, seen: View, x: jax.Array, results: tuple[int, int, int], channels: int | None):
    """`body(x_ref, out_ref, slot, seen)` for each image and block of channels; out `[N, *results, C]`."""
    check_registers(seen, name)
    n, *sizes, depth = x.shape
    channels = channels or channels_a_step(
        depth, lambda c: tiled_bytes((*_sizes(seen), c), x.dtype.itemsize), _STEP_BYTES, whole_lanes=True
    )
    slot = (seen.b.out, seen.s.padded, min(channels, LANES))
    held = 2 * sum(tiled_bytes((*places, channels), x.dtype.itemsize) for places in (sizes, results))
    limit = vmem_limit(name, held + tiled_bytes(slot, 4))

    def kernel(x_ref, out_ref, slot_ref):
        for lanes in lane_groups(channels):
            slot = slot_ref.at[:, :, : lanes.stop - lanes.start]
            body(x_ref.at[0, :, :, :, lanes], out_ref.at[0, :, :, :, lanes], slot, seen)

    out = call(
        kernel,
        name=name,
        grid=(n, pl.cdiv(depth, channels)),
        in_specs=[pl.BlockSpec((1, *sizes, channels), lambda n, c: (n, 0, 0, 0, c))],
        out_specs=pl.BlockSpec((1, *results, channels), lambda n, c: (n, 0, 0, 0, c)),
        out_shape=jax.ShapeDtypeStruct((n, *results, depth), x.dtype),
        scratch_shapes=[pltpu.VMEM(slot, jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=limit),
    )(x)
    return seen.out_of(out)


def _inside(slide: Slide, place, tap: int):
    """Whether element `tap` of the window at `place` is a value and not padding."""
    index = place * slide.stride + tap - slide.low
    return (index >= 0) & (index < slide.size)


def _count(slide: Slide, place):
    """How many values the window at `place` has."""
    start = place * slide.stride - slide.low
    last = jnp.minimum(start + slide.window, slide.size)
    return (last - jnp.maximum(start, 0)).astype(jnp.float32)


def _mean_of(total: jax.Array, a_place, seen: View) -> jax.Array:
    """total `[B, S, C]` of one place on A, over the number of values of each window."""
    slides = ((0, seen.b), (1, seen.s))
    count = _count(seen.a, jnp.int32(a_place))
    for axis, slide in slides:
        if not slide.still:
            count = count * _count(slide, lax.broadcasted_iota(jnp.int32, total.shape, axis))
    return total / count


def _means(x_ref, out_ref, slot, seen: View) -> None:
    def step(place, _):
        # A value times 0 would make NaN of an infinity that no window holds.
        rows = (
            jnp.where(_inside(seen.a, place, j), x_ref[seen.a.source(place, j)].astype(jnp.float32), 0.0)
            for j in range(seen.a.window)
        )
        total = sum(rows, start=jnp.zeros(x_ref.shape[1:], jnp.float32))
        if not seen.b.still:
            total = jnp.stack([_column(total, seen.b, b) for b in range(seen.b.out)])
        if not seen.s.still:
            total = _along_sublanes(total, slot, seen.s)
        out_ref[place] = _mean_of(total, place, seen).astype(out_ref.dtype)
        return 0

    lax.fori_loop(0, seen.a.out, step, 0)


def _column(v: jax.Array, slide: Slide, place: int) -> jax.Array:
    start = place * slide.stride - slide.low
    columns = [v[b] for b in range(max(start, 0), min(start + slide.window, slide.size))]
    return sum(columns[1:], start=columns[0])


def _along_sublanes(v: jax.Array, slot, slide: Slide) -> jax.Array:
    if slide.out == 1 and slide.low == 0 and slide.window >= slide.size:
        return v.sum(1, keepdims=True)
    fill(v, slot, slide)
    places = lax.broadcasted_iota(jnp.int32, (v.shape[0], slide.out, v.shape[2]), 1)
    values = read_taps(slot, slide)
    return sum(
        (jnp.where(_inside(slide, places, j), value, 0.0) for j, value in enumerate(values)),
        start=jnp.zeros(values[0].shape, jnp.float32),
    )


def _shares(g_ref, dx_ref, slot, seen: View) -> None:
    """Each row of x gathers from the windows that hold it."""
    a, b, s = seen.a, seen.b, seen.s
    # A row at `r` is element j of the window at (r + low - j) / stride, where that is a whole number.
    most = pl.cdiv(a.window, a.stride)

    def step(row, _):
        total = jnp.zeros(g_ref.shape[1:], jnp.float32)
        # lax's, because the rounding of `//` asks Mosaic for the chip, which is unknown when compiling ahead.
        newest = lax.div(row + a.low, jnp.int32(a.stride))
        for back in range(most):
            place = newest - back
            holds = (place >= 0) & (place < a.out) & (row + a.low - place * a.stride < a.window)
            at = jnp.clip(place, 0, a.out - 1)
            total += jnp.where(holds, _mean_of(g_ref[at].astype(jnp.float32), at, seen), 0.0)
        total = place_back([total] * s.window, slot, s)
        dx_ref[row] = (total if b.still else _to_columns(total, b)).astype(dx_ref.dtype)
        return 0

    lax.fori_loop(0, a.size, step, 0)


def _to_columns(share: jax.Array, slide: Slide) -> jax.Array:
    def column(index: int) -> jax.Array:
        holding = [
            share[place] for place in range(slide.out) if 0 <= index + slide.low - place * slide.stride < slide.window
        ]
        return sum(holding[1:], start=holding[0]) if holding else jnp.zeros_like(share[0])

    return jnp.stack([column(index) for index in range(slide.size)])
