"""One axis of a pooling: what its windows see of an array, and what they give back to it."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..arguments import Pairs


class Axis(NamedTuple):
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


def axes_of(spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs) -> list[Axis]:
    """The axes of `[N, *spatial, C]` along which there is something to do."""
    each = enumerate(zip(spatial, window, strides, padding, strict=True), start=1)
    axes = [Axis(number, n, k, s, low, high) for number, (n, k, s, (low, high)) in each]
    return [axis for axis in axes if axis.slides]


def lowest(dtype: np.dtype) -> np.ndarray:
    """What padding is worth to a maximum."""
    return np.asarray(-np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min, dtype)


def taps(x: jax.Array, axis: Axis, fill: np.ndarray) -> list[jax.Array]:
    """For each element of the window, that element of every window: `window` arrays of the output's size."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis.number] = (axis.low, axis.high, 0)
    padded = lax.pad(x, jnp.asarray(fill), widths) if axis.low or axis.high else x
    reach = (axis.out - 1) * axis.stride + 1
    return [lax.slice_in_dim(padded, j, j + reach, axis.stride, axis.number) for j in range(axis.window)]


def untap(part: jax.Array, axis: Axis, tap: int) -> jax.Array:
    """What each window gives to its element number `tap`, at that element's place in an array of the input's size."""
    before = tap - axis.low
    after = axis.size - before - (axis.out - 1) * axis.stride - 1
    widths = [(0, 0, 0)] * part.ndim
    widths[axis.number] = (before, after, axis.stride - 1)
    return lax.pad(part, jnp.zeros((), part.dtype), widths)


def reduced(
    x: jax.Array, axis: Axis, fill: np.ndarray, combine: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    if axis.window == 1:
        return taps(x, axis, fill)[0]
    return functools.reduce(combine, taps(x, axis, fill))


def counted(axes: Sequence[Axis], rank: int) -> np.ndarray | float:
    """How many values lie under each window, padding left out: broadcastable to the output, float32."""
    count = np.ones((1,) * rank, np.float32)
    for axis in axes:
        inside = [(axis.place(tap) >= 0) & (axis.place(tap) < axis.size) for tap in range(axis.window)]
        shape = [1] * rank
        shape[axis.number] = axis.out
        count = count * np.sum(inside, 0, dtype=np.float32).reshape(shape)
    return float(count.flat[0]) if np.ptp(count) == 0 else count
