"""Pooling an axis at a time, each axis's result kept: forms for CPUs, strided axes as well.

Left to itself XLA fuses the axes into one loop, that computes the maxima of the first axis anew for every element of
the window of the next. And where it fuses the padding, it asks for every value whether it is there. A barrier on what
an axis reads, padding included, leaves loops that are vectors throughout.

Gradients go the other way round: not each window to its elements, but each element asks the windows that hold it. Where
the stride is above 1, neighbours ask different ones, so they are computed a phase at a time and put together.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..arguments import Pairs
from ..images import interleaved
from .axes import Axis, axes_of, counted, lowest


def _padded(x: jax.Array, axis: Axis, low: int, high: int, fill: np.ndarray) -> jax.Array:
    widths = [(0, 0, 0)] * x.ndim
    widths[axis.number] = (low, high, 0)
    return lax.pad(x, jnp.asarray(fill, x.dtype), widths) if low or high else x


def _seen(x: jax.Array, axis: Axis, fill: np.ndarray) -> list[jax.Array]:
    """For each element of the window, that element of every window, read from an array that is there."""
    there = lax.optimization_barrier(_padded(x, axis, axis.low, axis.high, fill))
    reach = (axis.out - 1) * axis.stride + 1
    return [lax.slice_in_dim(there, tap, tap + reach, axis.stride, axis.number) for tap in range(axis.window)]


def _given_back(
    arrays: Sequence[tuple[jax.Array, int]], axis: Axis, given: Callable[..., jax.Array], dtype: np.dtype
) -> jax.Array:
    """For each value along the axis, the sum of what the windows that hold it give it.

    Args:
      arrays: of the windows, `[N, ..., out, ..., C]`, each with the number that stands where no window is.
      given: takes the number of an element of the window, and the arrays; what those windows give to that element.
    """
    most = -(-axis.window // axis.stride)
    steps = -(-(axis.size + axis.low) // axis.stride)
    # Windows beyond the last step hold padding alone: what is added behind can be negative.
    there = lax.optimization_barrier(
        tuple(_padded(a, axis, most - 1, steps - axis.out, np.asarray(fill, a.dtype)) for a, fill in arrays)
    )
    shape = (*there[0].shape[: axis.number], steps, *there[0].shape[axis.number + 1 :])
    phases = []
    for phase in range(axis.stride):
        total = jnp.zeros(shape, dtype)
        for back, tap in enumerate(range(phase, axis.window, axis.stride)):
            first = most - 1 - back
            total = total + given(tap, *(lax.slice_in_dim(a, first, first + steps, 1, axis.number) for a in there))
        phases.append(total)
    return lax.slice_in_dim(interleaved(phases, axis.number), axis.low, axis.low + axis.size, 1, axis.number)


def max_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs) -> jax.Array:
    """Largest value in each window of x `[N, *spatial, C]`, of any dtype; padding counts as the smallest value."""
    fill = lowest(x.dtype)
    for axis in reversed(axes_of(x.shape[1:-1], window, strides, padding)):
        x = functools.reduce(jnp.maximum, _seen(x, axis, fill))
    return x


def max_pool_gradient(
    x: jax.Array, g: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """What a cotangent g of `max_pool(x, ...)` means for x: the first largest value of a window takes it all.

    First is meant in row-major order, so maxima are taken from the last axis to the first, and cotangents go back from
    the first to the last. Where a window holds NaN, one of its elements takes it; which one is not said.
    """
    fill = lowest(x.dtype)
    axes = axes_of(x.shape[1:-1], window, strides, padding)
    dtype, values, winners = x.dtype, x, []
    for axis in reversed(axes):
        values, winner = _largest(values, axis, fill)
        winners.append(winner)
    g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    for axis in axes:
        g = _given_back([(g, 0), (winners.pop(), -1)], axis, _if_it_won, g.dtype)
    return g.astype(dtype)


def _if_it_won(tap: int, g: jax.Array, winner: jax.Array) -> jax.Array:
    return jnp.where(winner == tap, g, jnp.zeros((), g.dtype))


def _largest(x: jax.Array, axis: Axis, fill: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Every window's largest value, and the number of the first element that holds it."""
    first, *others = _seen(x, axis, fill)
    number = jnp.int8 if axis.window < 128 else jnp.int32
    # Padding equals a largest value of -inf, and must not take its cotangent: the first value after it does.
    inside = np.maximum(-axis.place(0), 0).reshape([-1 if n == axis.number else 1 for n in range(x.ndim)])
    winner, largest = jnp.broadcast_to(jnp.asarray(inside, number), first.shape), first
    for tap, value in enumerate(others, start=1):
        winner = jnp.where(value > largest, jnp.asarray(tap, number), winner)
        largest = jnp.maximum(largest, value)
    return largest, winner


def avg_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs) -> jax.Array:
    """Mean of each window of x `[N, *spatial, C]` over the values that are there, summed in float32 or wider."""
    axes = axes_of(x.shape[1:-1], window, strides, padding)
    total = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in reversed(axes):
        if axis.window == axis.size and axis.out == 1 and axis.low == 0:
            total = total.sum(axis.number, keepdims=True)
        else:
            total = functools.reduce(operator.add, _seen(total, axis, np.zeros((), total.dtype)))
    return (total / counted(axes, x.ndim)).astype(x.dtype)


def avg_pool_gradient(
    g: jax.Array, *, spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """What a cotangent g of `avg_pool(x, ...)` means for x `[N, *spatial, C]`: an equal share for each value."""
    axes = axes_of(spatial, window, strides, padding)
    share = g.astype(jnp.promote_types(g.dtype, jnp.float32)) / counted(axes, g.ndim)
    for axis in axes:
        share = _given_back([(share, 0)], axis, lambda _, share: share, share.dtype)
    return share.astype(g.dtype)
