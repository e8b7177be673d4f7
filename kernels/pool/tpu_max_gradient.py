"""The gradient of max-pooling on TPU: each window's cotangent finds its way an axis at a time.

The first largest value of a window, in row-major order, lies in the first frame that holds it, there in the first row,
there in the first pixel. So maxima are taken from the last axis to the first, and cotangents are given back from the
first axis to the last. Everything between is float32 in VMEM; HBM sees x and g once, and the result once.
"""

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
    channels_a_step,
    check_registers,
    lane_groups,
    largest,
    largest_of_registers,
    place_back,
    read_taps,
    taps,
    tiled_bytes,
    view,
    vmem_limit,
)

_STEP_BYTES = 2 << 20


def max_pool_gradient(
    x: jax.Array,
    out: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    channels: int | None = None,
) -> jax.Array:
    """What a cotangent g of `out = max_pool(x, ...)` means for x `[N, *spatial, C]`, float32 or bfloat16.

    Where a window holds NaN, one of its elements or none takes its cotangent. `out` is made again rather than read.

    Raises:
      Refused: an image of 128 channels is more than VMEM holds, or its rows are too long.
    """
    del out
    seen = view(x.shape[1:-1], window, strides, padding)
    check_registers(seen, "max_pool_gradient")
    x, g = seen.into(x), seen.into(g)
    n, *sizes, depth = x.shape
    results = (seen.a.out, seen.b.out, seen.s.out)
    channels = channels or channels_a_step(
        depth, lambda c: tiled_bytes((*sizes, c), x.dtype.itemsize), _STEP_BYTES, whole_lanes=True
    )
    lanes = min(channels, LANES)
    # What the axes before A leave of an image: B pooled where S is last, S pooled where S is first.
    middle = (seen.b.out, seen.s.size) if seen.sublanes_are_time else (1, seen.s.out)
    scratch = {"maxima": (seen.a.size, *middle, lanes), "shares": (seen.a.padded, *middle, lanes)}
    if seen.s.stride > 1:
        # Time needs its slot for one row at a time. Width keeps every row, which is read again on the way back.
        scratch["slots"] = (1 if seen.sublanes_are_time else seen.a.size, seen.b.out, seen.s.padded, lanes)
        scratch["given"] = (1, seen.b.out, seen.s.padded, lanes)
    held = 2 * sum(tiled_bytes((*places, channels), x.dtype.itemsize) for places in (sizes, sizes, results))
    limit = vmem_limit("max_pool_gradient", held + sum(tiled_bytes(shape, 4) for shape in scratch.values()))
    body = _time_first if seen.sublanes_are_time else _rows_first

    def kernel(x_ref, g_ref, dx_ref, *refs):
        named = dict(zip(scratch, refs, strict=True))
        for group in lane_groups(channels):
            at = x_ref.at[0, :, :, :, group], g_ref.at[0, :, :, :, group], dx_ref.at[0, :, :, :, group]
            body(*at, seen, **{name: ref.at[..., : group.stop - group.start] for name, ref in named.items()})

    dx = call(
        kernel,
        name="max_pool_gradient",
        grid=(n, pl.cdiv(depth, channels)),
        in_specs=[pl.BlockSpec((1, *places, channels), lambda n, c: (n, 0, 0, 0, c)) for places in (sizes, results)],
        out_specs=pl.BlockSpec((1, *sizes, channels), lambda n, c: (n, 0, 0, 0, c)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch.values()],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=limit),
    )(x, g)
    return seen.out_of(dx)


def _time_first(x_ref, g_ref, dx_ref, seen, *, maxima, shares, slots=None, given=None) -> None:
    """A is height, B width, S time: the order of the axes is S, A, B."""
    a, b, s = seen.a, seen.b, seen.s
    slot = None if slots is None else slots.at[0]

    def pool_width(row, _):
        maxima[row] = largest_of_registers(x_ref[row].astype(jnp.float32), b)
        return 0

    def share_in_time(place, _):
        rows = [maxima[a.source(place, j)] for j in range(a.window)]
        over_rows = largest(rows)
        values = taps(over_rows, slot, s)
        g = g_ref[place].astype(jnp.float32)
        parts = _split(values, largest(values), g, s)
        g = place_back(parts, None if given is None else given.at[0], s)
        _add_rows(shares, place, _split(rows, over_rows, g), a)
        return 0

    def share_in_width(row, _):
        columns = list(x_ref[row].astype(jnp.float32))
        largest_of, share = maxima[row], shares[row + a.low]
        sums: list[jax.Array | None] = [None] * b.size
        for place in range(b.out):
            sources = [b.source(place, j) for j in range(b.window)]
            parts = _split([columns[source] for source in sources], largest_of[place], share[place])
            for source, part in zip(sources, parts, strict=True):
                so_far = sums[source]
                sums[source] = part if so_far is None else so_far + part
        nothing = jnp.zeros_like(columns[0])
        dx_ref[row] = jnp.stack([nothing if part is None else part for part in sums]).astype(dx_ref.dtype)
        return 0

    lax.fori_loop(0, a.size, pool_width, 0)
    _clear_first_rows(shares, a)
    lax.fori_loop(0, a.out, share_in_time, 0)
    _fold_ends(shares, a)
    lax.fori_loop(0, a.size, share_in_width, 0)


def _rows_first(x_ref, g_ref, dx_ref, seen, *, maxima, shares, slots=None, given=None) -> None:
    """A is height and S width: the order of the axes is A, S."""
    a, s = seen.a, seen.s

    def pool_width(row, _):
        maxima[row] = largest(taps(x_ref[row].astype(jnp.float32), None if slots is None else slots.at[row], s))
        return 0

    def share_in_height(place, _):
        rows = [maxima[a.source(place, j)] for j in range(a.window)]
        _add_rows(shares, place, _split(rows, largest(rows), g_ref[place].astype(jnp.float32)), a)
        return 0

    def share_in_width(row, _):
        values = taps(x_ref[row].astype(jnp.float32), None, s) if slots is None else read_taps(slots.at[row], s)
        parts = _split(values, maxima[row], shares[row + a.low], s)
        dx_ref[row] = place_back(parts, None if given is None else given.at[0], s).astype(dx_ref.dtype)
        return 0

    lax.fori_loop(0, a.size, pool_width, 0, unroll=min(2, a.size))
    _clear_first_rows(shares, a)
    lax.fori_loop(0, a.out, share_in_height, 0, unroll=min(2, a.out))
    _fold_ends(shares, a)
    lax.fori_loop(0, a.size, share_in_width, 0, unroll=min(2, a.size))


def _split(values: Sequence[jax.Array], top: jax.Array, g: jax.Array, slide: Slide | None = None) -> list[jax.Array]:
    """g to the first of the values that is the `top`, and zeros to the others.

    With the slide of axis 1, an end that is repeated in front as padding takes nothing.
    """
    parts, zero = [], jnp.zeros_like(g)
    for j, value in enumerate(values[:-1]):
        wins = value == top
        if slide is not None and j < slide.low:
            first_inside = pl.cdiv(slide.low - j, slide.stride)
            wins &= lax.broadcasted_iota(jnp.int32, wins.shape, 1) >= first_inside
        parts.append(jnp.where(wins, g, zero))
        g = jnp.where(wins, zero, g)
    return [*parts, g]


def _clear_first_rows(shares, a: Slide) -> None:
    """Zeros in the rows that `_add_rows` adds to before it has set them, or never reaches."""
    if a.stride > a.window or a.padded > (a.out - 1) * a.stride + a.window:
        shares[...] = jnp.zeros(shares.shape, shares.dtype)
    elif a.window > a.stride:
        first = a.window - a.stride
        shares[:first] = jnp.zeros((first, *shares.shape[1:]), shares.dtype)


def _add_rows(shares, place, parts: Sequence[jax.Array], a: Slide) -> None:
    """The parts of the window at `place` to its rows, counted with the padding.

    Places come in order, so the last `stride` rows of a window are new.
    """
    for j, part in enumerate(parts):
        row = place * a.stride + j
        shares[row] = part if j >= a.window - a.stride else shares[row] + part


def _fold_ends(shares, a: Slide) -> None:
    """What went to the padding, where an end of the axis is repeated, goes to that end."""
    for row in range(a.low):
        shares[a.low] += shares[row]
    for row in range(a.low + a.size, a.padded):
        shares[a.low + a.size - 1] += shares[row]
