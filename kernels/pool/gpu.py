"""Max and average pooling on GPUs. Compiled for Hopper and Ampere; not yet run on hardware.

One kernel serves both chips, any window, stride and padding in one to three dimensions. A warpgroup takes some images
and channels, the same for every output that it computes, so that it knows each input pixel's place as plain numbers
and needs neither a mask nor a copy of the padded input. It walks along a row of outputs and keeps, in registers, the
columns that the next window shares with this one: a 3x3x3 window of stride 1 reads 9 values an output, not 27, and
those it shares with its neighbours come from the cache. Nothing but the input and the output crosses the memory bus.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..dispatch import Refused
from ..pallas_gpu import call

type Pairs = tuple[tuple[int, int], ...]

_THREADS = 128  # of a warpgroup, among which a tile is dealt out evenly
_VECTOR_BYTES = 16  # the most that a thread loads at once
_BLOCKS = 132 * 8  # an H100 has 132 multiprocessors; 8 blocks on each keep enough loads in flight to hide latency
_MOST_TAPS = 128  # each is a load in the program; a larger window wants a reduction, which XLA has


def max_pool(
    x: jax.Array, *, window: tuple[int, ...], strides: tuple[int, ...], padding: Pairs, columns: int | None = None
) -> jax.Array:
    """Largest value in each window of x `[N, *spatial, C]`, float32 or bfloat16; padding never wins, NaN always does.

    `columns` is how many outputs of a row a block computes. Compiled for Hopper and Ampere; not yet run on hardware.

    Raises:
      Refused: channels not a multiple of 8; too few images for 128 threads; padding as large as the window; more than
        128 taps; 2^31 values or more; nothing to compute.
    """
    plan = _plan("max_pool", x, window, strides, padding, columns)

    def kernel(x_ref, out_ref):
        # A tap beyond the edge repeats the nearest pixel, which is in the window too and so changes no maximum.
        _walk(x_ref, out_ref, plan, jnp.maximum, lambda value, inside: value, lambda value, place, w: value)

    return _run(kernel, x, plan, "max_pool")


def avg_pool(
    x: jax.Array, *, window: tuple[int, ...], strides: tuple[int, ...], padding: Pairs, columns: int | None = None
) -> jax.Array:
    """Mean of each window of x `[N, *spatial, C]`, padding not counted; float32 or bfloat16, summed in float32.

    `columns` is how many outputs of a row a block computes. Compiled for Hopper and Ampere; not yet run on hardware.

    Raises:
      Refused: as `max_pool`.
    """
    plan = _plan("avg_pool", x, window, strides, padding, columns)

    def masked(value, inside):
        value = value.astype(jnp.float32)
        # Not a product with 0 or 1: the pixel that stands in for padding may be infinite.
        if inside is None:
            return value
        return jnp.where(jnp.broadcast_to(inside, value.shape), value, jnp.zeros_like(value))

    def mean(total, place, w):
        pixels = _pixels(plan, 0, place.d) * _pixels(plan, 1, place.h) * _pixels(plan, 2, w)
        return total / jnp.asarray(pixels, jnp.float32)

    def kernel(x_ref, out_ref):
        _walk(x_ref, out_ref, plan, lax.add, masked, mean)

    return _run(kernel, x, plan, "avg_pool")


@dataclass(frozen=True)
class _Plan:
    """A pooling over three axes, as the kernel sees it, and how it is dealt out over blocks."""

    batch: int
    spatial: tuple[int, ...]
    channels: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    out: tuple[int, ...]
    vector: int  # channels that a thread takes
    across: int  # threads that share an image's channels, from 2 to 128; the others of the warpgroup have other images
    columns: int  # outputs along the last axis that a block computes, unless fewer are left
    result: tuple[int, ...]  # shape

    @property
    def images(self) -> int:
        """Images in a tile."""
        return _THREADS // self.across

    @property
    def lanes(self) -> int:
        """Channels in a tile."""
        return self.across * self.vector

    @property
    def layout(self) -> Any:
        """How a tile `[images, lanes]` is dealt out over 4 warps of 32 threads, each with a vector.

        Said outright, as the layout that Mosaic GPU would choose loads a vector element by element.
        """
        row, warp = self.lanes, 32 * self.vector
        if self.across > 32:
            # Each warp has a piece of one image: [images, pieces, threads, vector].
            tiling, warps, threads = ((self.images, row), (warp,), (self.vector,)), (-4, -3), (-2,)
            warps = warps if self.images > 1 else (-3,)
        elif self.across == 32:
            tiling, warps, threads = ((4, row), (self.vector,)), (-3,), (-2,)
        else:
            # Each warp has several images: [warps, 1, images of a warp, threads, vector].
            tiling, warps, threads = ((self.images, row), (32 // self.across, row), (self.vector,)), (-5,), (-3, -2)
        return plgpu.Layout.TILED(plgpu.Tiling(tiling), warps, threads, -1)

    @property
    def tiles(self) -> int:
        return self.batch // self.images * (self.channels // self.lanes)

    @property
    def segments(self) -> int:
        return -(-self.out[2] // self.columns)

    def beyond(self, axis: int) -> bool:
        """Whether some window reaches over the edges of an axis."""
        last = (self.out[axis] - 1) * self.strides[axis] - self.low[axis] + self.window[axis] - 1
        return self.low[axis] > 0 or last >= self.spatial[axis]


@dataclass(frozen=True)
class _Place:
    """What one block computes: images from n, channels from c, and in them outputs from column w of a row (d, h)."""

    n: jax.Array
    d: jax.Array
    h: jax.Array
    w: jax.Array
    c: jax.Array

    @classmethod
    def of_block(cls, plan: _Plan) -> "_Place":
        """Neighbouring blocks share input: first along a row, then from row to row, then other images and channels."""
        rest, segment = _divided(lax.axis_index("block"), plan.segments)
        rest, h = _divided(rest, plan.out[1])
        tile, d = _divided(rest, plan.out[0])
        images, lanes = _divided(tile, plan.channels // plan.lanes)
        return cls(images * plan.images, d, h, segment * plan.columns, lanes * plan.lanes)


def _divided(number: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
    return lax.div(number, jnp.int32(by)), lax.rem(number, jnp.int32(by))


def _clamped(plan: _Plan, axis: int, index: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """A place on an axis, moved to the nearest one that exists, and whether it did before; None if it always does."""
    if not plan.beyond(axis):
        return index, None
    last = plan.spatial[axis] - 1
    return jnp.clip(index, 0, last), (index >= 0) & (index <= last)


def _over_column(x_ref, plan, place, n, w, join, masked) -> jax.Array:
    """What the window's depth and height at input column w come to, `[images, lanes]`."""
    w, inside_w = _clamped(plan, 2, w)
    values = []
    for tap_d in range(plan.window[0]):
        d, inside_d = _clamped(plan, 0, place.d * plan.strides[0] - plan.low[0] + tap_d)
        for tap_h in range(plan.window[1]):
            h, inside_h = _clamped(plan, 1, place.h * plan.strides[1] - plan.low[1] + tap_h)
            tile = x_ref.at[pl.ds(n, plan.images), d, h, w, pl.ds(place.c, plan.lanes)]
            # "Optimized" would refuse threads that load two bytes, as they must of a small batch of odd channels.
            value = plgpu.load(tile, layout=plan.layout, optimized=False)
            conditions = [condition for condition in (inside_d, inside_h, inside_w) if condition is not None]
            values.append(masked(value, reduce(lax.bitwise_and, conditions) if conditions else None))
    return reduce(join, values)


def _walk(x_ref, out_ref, plan: _Plan, join: Callable, masked: Callable, finish: Callable) -> None:
    """Computes a block's outputs one after another, carrying the columns that two neighbouring windows share."""
    place = _Place.of_block(plan)
    window, stride = plan.window[2], plan.strides[2]
    shared = max(window - stride, 0)

    def walk(n):
        def column(w):
            return _over_column(x_ref, plan, place, n, w, join, masked)

        def step(w, carried):
            start = w * stride - plan.low[2]
            columns = (*carried, *(column(start + tap) for tap in range(shared, window)))
            value = finish(reduce(join, columns), place, w).astype(out_ref.dtype)
            tile = out_ref.at[pl.ds(n, plan.images), place.d, place.h, w, pl.ds(place.c, plan.lanes)]
            plgpu.store(tile, value, optimized=False)
            return columns[stride:]

        start = place.w * stride - plan.low[2]
        carried = tuple(column(start + tap) for tap in range(shared))
        lax.fori_loop(place.w, jnp.minimum(place.w + plan.columns, plan.out[2]), step, carried)

    walk(place.n)
    if plan.batch % plan.images:
        # Too few images are left for a block of their own. They are done with some that are done already.
        pl.when(place.n + 2 * plan.images > plan.batch)(lambda: walk(plan.batch - plan.images))


def _pixels(plan: _Plan, axis: int, out: jax.Array) -> jax.Array | int:
    """How many pixels of a window are there, along one axis."""
    if not plan.beyond(axis):
        return plan.window[axis]
    start = out * plan.strides[axis] - plan.low[axis]
    return jnp.minimum(start + plan.window[axis], plan.spatial[axis]) - jnp.maximum(start, 0)


def _run(kernel: Callable[..., None], x: jax.Array, plan: _Plan, name: str) -> jax.Array:
    run = call(
        kernel,
        out_type=jax.ShapeDtypeStruct((plan.batch, *plan.out, plan.channels), x.dtype),
        name=name,
        # One axis, as CUDA allows few blocks on the others.
        grid=(plan.tiles * plan.out[0] * plan.out[1] * plan.segments,),
        grid_names=("block",),
    )
    return run(x.reshape(plan.batch, *plan.spatial, plan.channels)).reshape(plan.result)


def _plan(
    operation: str,
    x: jax.Array,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Pairs,
    columns: int | None,
) -> _Plan:
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        raise Refused(f"{operation} on GPU takes float32 and bfloat16, got {x.dtype}")
    batch, *spatial, channels = x.shape
    out = [
        (size + low + high - taps) // stride + 1
        for size, (low, high), taps, stride in zip(spatial, padding, window, strides, strict=True)
    ]
    result = (batch, *out, channels)
    if math.prod(x.shape) == 0 or min(out) < 1:
        raise Refused(f"{operation} has nothing to compute of {list(x.shape)}")
    if x.size >= 2**31:
        raise Refused(f"{operation} on GPU counts values in 32 bits, got {x.size}")
    for pair, taps in zip(padding, window, strict=True):
        if max(pair) >= taps:
            raise Refused(f"{operation} on GPU needs padding smaller than the window, got {pair} for {taps}")
    if math.prod(window) > _MOST_TAPS:
        raise Refused(f"{operation} on GPU takes windows of up to {_MOST_TAPS} pixels, got {window}")
    if channels % 8:
        raise Refused(f"{operation} on GPU needs channels in multiples of 8, got {channels}")
    axes = list(zip(spatial, window, strides, (low for low, _ in padding), out, strict=True))
    # Axes that are not pooled over: those in front are batch, those behind are channels.
    while len(axes) > 1 and _untouched(axes[0]):
        batch *= axes.pop(0)[0]
    while len(axes) > 1 and _untouched(axes[-1]):
        channels *= axes.pop()[0]
    axes = [(1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    spatial3, window3, strides3, low3, out3 = (tuple(column) for column in zip(*axes, strict=True))
    shares = _shares(batch, channels, x.dtype.itemsize)
    if shares is None:
        raise Refused(
            f"{operation} on GPU needs something to do for each of {_THREADS} threads,"
            f" got {batch} images of {channels} channels"
        )
    vector, across = shares
    rows = batch * channels // (_THREADS * vector) * out3[0] * out3[1]
    columns = min(columns or _columns(out3[2], rows), out3[2])
    return _Plan(batch, spatial3, channels, window3, strides3, low3, out3, vector, across, columns, result)


def _columns(out: int, rows: int) -> int:
    """How much of a row a block computes: all, unless there are too few rows to keep the GPU busy."""
    columns = out
    while columns > 4 and rows * -(-out // columns) < _BLOCKS:
        columns = -(-columns // 2)
    return columns


def _untouched(axis: tuple[int, int, int, int, int]) -> bool:
    size, window, stride, low, out = axis
    return window == 1 and stride == 1 and low == 0 and out == size


def _shares(batch: int, channels: int, itemsize: int) -> tuple[int, int] | None:
    """The channels of a thread and the threads of an image, as many as can be; None if some thread would have none."""
    for vector in (v for v in (8, 4, 2, 1) if v * itemsize <= _VECTOR_BYTES):
        for across in (128, 64, 32, 16, 8, 4, 2):
            if channels % (across * vector) == 0 and _THREADS // across <= batch:
                return vector, across
    return None
