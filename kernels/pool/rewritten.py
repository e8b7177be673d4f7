"""Pooling in plain JAX, an axis at a time: maxima and sums of shifted copies, which XLA fuses.

XLA's own `reduce_window` over three axes visits every window element by element. A window is a box, so its largest
value is the largest along width, of that along height, of that along time: 6 operations instead of 26 for 3x3x3.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..arguments import Pairs


class _Axis(NamedTuple):
    """One spatial axis: which of the array's it is, its size before and after, and how the window slides over it."""

    number: int
    size: int
    window: int
    stride: int
    low: int
    high: int

    @property
    def out(self) -> int:
        return (self.size + self.low + self.high - self.window) // self.stride + 1

    @property
    def slides(self) -> bool:
        return self.window > 1 or self.stride > 1 or self.low + self.high > 0

    def place(self, tap: int) -> np.ndarray:
        """Where in the input each window has its element number `tap`; outside lies the padding."""
        return np.arange(self.out) * self.stride + tap - self.low


def _axes(spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs) -> list[_Axis]:
    each = enumerate(zip(spatial, window, strides, padding, strict=True), start=1)
    axes = [_Axis(number, n, k, s, low, high) for number, (n, k, s, (low, high)) in each]
    return [axis for axis in axes if axis.slides]


def _lowest(dtype: np.dtype) -> np.ndarray:
    return np.asarray(-np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min, dtype)


def _taps(x: jax.Array, axis: _Axis, fill: np.ndarray) -> list[jax.Array]:
    """For each element of the window, that element of every window: `window` arrays of the output's size."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis.number] = (axis.low, axis.high, 0)
    padded = lax.pad(x, jnp.asarray(fill), widths) if axis.low or axis.high else x
    reach = (axis.out - 1) * axis.stride + 1
    return [lax.slice_in_dim(padded, j, j + reach, axis.stride, axis.number) for j in range(axis.window)]


def _untap(part: jax.Array, axis: _Axis, tap: int) -> jax.Array:
    """What each window gives to its element number `tap`, at that element's place in an array of the input's size."""
    before = tap - axis.low
    after = axis.size - before - (axis.out - 1) * axis.stride - 1
    widths = [(0, 0, 0)] * part.ndim
    widths[axis.number] = (before, after, axis.stride - 1)
    return lax.pad(part, jnp.zeros((), part.dtype), widths)


def _reduced(
    x: jax.Array, axis: _Axis, fill: np.ndarray, combine: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    if axis.window == 1:
        return _taps(x, axis, fill)[0]
    return functools.reduce(combine, _taps(x, axis, fill))


def max_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs) -> jax.Array:
    """Largest value in each window of x `[N, *spatial, C]`, of any dtype; padding counts as the smallest value."""
    fill = _lowest(x.dtype)
    # A strided slice costs XLA's TPU compiler a pass of its own wherever the axis lies in tiles, as height and width
    # do for few channels; `reduce_window` over both does not. Time never lies there alone.
    axes = _axes(x.shape[1:-1], window, strides, padding)
    strided = [axis for axis in axes if axis.stride > 1 and axis.number >= x.ndim - 3]
    if strided:
        sizes, steps, pads = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
        for axis in strided:
            sizes[axis.number], steps[axis.number] = axis.window, axis.stride
            pads[axis.number] = (axis.low, axis.high)
        x = lax.reduce_window(x, fill[()], lax.max, sizes, steps, pads)
    for axis in reversed([axis for axis in axes if axis not in strided]):
        x = _reduced(x, axis, fill, jnp.maximum)
    return x


def max_pool_gradient(
    x: jax.Array,
    out: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
) -> jax.Array:
    """What a cotangent g of `out = max_pool(x, ...)` means for x: the first largest value of a window takes it all.

    First is meant in row-major order: of the frames that hold the largest value the first, of its rows the first, of
    that row's pixels the first. So a cotangent finds its way an axis at a time, from the first axis to the last. Where
    a window holds NaN, one of its elements takes it; which one is not said.
    """
    del out
    fill = _lowest(x.dtype)
    axes = _axes(x.shape[1:-1], window, strides, padding)
    values = [x]
    for axis in reversed(axes):
        values.append(_reduced(values[-1], axis, fill, jnp.maximum))
    g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    for axis in axes:
        largest, before = values.pop(), values[-1]
        g = _routed(before, largest, g, axis, fill)
    return g.astype(x.dtype)


def _routed(values: jax.Array, largest: jax.Array, g: jax.Array, axis: _Axis, fill: np.ndarray) -> jax.Array:
    """Each window's cotangent to the first of its `values` that is the `largest`: `[N, ..., size, ..., C]`."""
    parts, rest = [], g
    zero = jnp.zeros((), g.dtype)
    for tap, value in enumerate(_taps(values, axis, fill)[:-1]):
        wins = value == largest
        place = axis.place(tap)
        if place.min() < 0 or place.max() >= axis.size:
            # Padding equals a largest value of -inf, and must not take its cotangent.
            position = lax.broadcasted_iota(jnp.int32, value.shape, axis.number) * axis.stride + (tap - axis.low)
            wins &= (position >= 0) & (position < axis.size)
        parts.append(jnp.where(wins, rest, zero))
        rest = jnp.where(wins, zero, rest)
    parts.append(rest)
    return functools.reduce(operator.add, [_untap(part, axis, tap) for tap, part in enumerate(parts)])


def _counted(axes: Sequence[_Axis], rank: int) -> np.ndarray | float:
    """How many values lie under each window, padding left out: broadcastable to the output, float32."""
    count = np.ones((1,) * rank, np.float32)
    for axis in axes:
        inside = [(axis.place(tap) >= 0) & (axis.place(tap) < axis.size) for tap in range(axis.window)]
        shape = [1] * rank
        shape[axis.number] = axis.out
        count = count * np.sum(inside, 0, dtype=np.float32).reshape(shape)
    return float(count.flat[0]) if np.ptp(count) == 0 else count


def avg_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs) -> jax.Array:
    """Mean of each window of x `[N, *spatial, C]` over the values that are there, summed in float32 or wider."""
    axes = _axes(x.shape[1:-1], window, strides, padding)
    total = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in reversed(axes):
        if axis.window == axis.size and axis.out == 1 and axis.low == 0:
            total = total.sum(axis.number, keepdims=True)
        else:
            total = _reduced(total, axis, np.zeros((), total.dtype), operator.add)
    return (total / _counted(axes, x.ndim)).astype(x.dtype)


def avg_pool_gradient(
    g: jax.Array, *, spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """What a cotangent g of `avg_pool(x, ...)` means for x `[N, *spatial, C]`: an equal share for each value."""
    axes = _axes(spatial, window, strides, padding)
    share = g.astype(jnp.promote_types(g.dtype, jnp.float32)) / _counted(axes, g.ndim)
    for axis in axes:
        share = functools.reduce(operator.add, [_untap(share, axis, tap) for tap in range(axis.window)])
    return share.astype(g.dtype)
