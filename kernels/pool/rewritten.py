"""Pooling in plain JAX, an axis at a time: maxima and sums of shifted copies, which XLA fuses.

XLA's own `reduce_window` over three axes visits every window element by element. A window is a box, so its largest
value is the largest along width, of that along height, of that along time: 6 operations instead of 26 for 3x3x3.

Fused, the axes cost a CPU what they save. There forms that keep each axis's result are faster: see `FORMS`.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..arguments import Pairs
from ..dispatch import Refused
from ..images import image_by_image
from . import rewritten_axes
from .axes import Axis, axes_of, counted, lowest, reduced, taps, untap

# What the tuner tries for each operation. Form None is fused, and takes `reduce_window` where axes are strided.
#   axes: each axis's result is kept (rewritten_axes.py).
#   images: so, an image at a time.
_TRIED = ({}, {"form": "axes"}, {"form": "images"})
FORMS: Mapping[str, tuple[Mapping[str, Any], ...]] = dict.fromkeys(
    ("max_pool", "max_pool_gradient", "avg_pool", "avg_pool_gradient"), _TRIED
)


def _form(form: str, function: Callable[..., jax.Array], options: Mapping[str, Any], *arrays: jax.Array) -> jax.Array:
    if form == "axes":
        return function(*arrays, **options)
    if form != "images":
        raise Refused(f"pooling has the forms None, 'axes' and 'images', not {form!r}")
    each = list(zip(*(options[name] for name in ("window", "strides", "padding")), strict=True))
    # Frames that no window joins are images of their own.
    apart = 0
    while apart < len(each) - 1 and each[apart] == (1, 1, (0, 0)):
        apart += 1
    images = [a.reshape(-1, *a.shape[1 + apart :]) for a in arrays]
    out = image_by_image(partial(function, **{name: value[apart:] for name, value in options.items()}), *images)
    return out.reshape(*arrays[0].shape[: 1 + apart], *out.shape[1:])


def max_pool(
    x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs, form: str | None = None
) -> jax.Array:
    """Largest value in each window of x `[N, *spatial, C]`, of any dtype; padding counts as the smallest value.

    Raises:
      Refused: no such form.
    """
    if form is not None:
        options = {"window": window, "strides": strides, "padding": padding}
        return _form(form, rewritten_axes.max_pool, options, x)
    fill = lowest(x.dtype)
    # A strided slice costs XLA's TPU compiler a pass of its own wherever the axis lies in tiles, as height and width
    # do for few channels; `reduce_window` over both does not. Time never lies there alone.
    axes = axes_of(x.shape[1:-1], window, strides, padding)
    strided = [axis for axis in axes if axis.stride > 1 and axis.number >= x.ndim - 3]
    if strided:
        sizes, steps, pads = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
        for axis in strided:
            sizes[axis.number], steps[axis.number] = axis.window, axis.stride
            pads[axis.number] = (axis.low, axis.high)
        x = lax.reduce_window(x, fill[()], lax.max, sizes, steps, pads)
    for axis in reversed([axis for axis in axes if axis not in strided]):
        x = reduced(x, axis, fill, jnp.maximum)
    return x


def max_pool_gradient(
    x: jax.Array,
    out: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    form: str | None = None,
) -> jax.Array:
    """What a cotangent g of `out = max_pool(x, ...)` means for x: the first largest value of a window takes it all.

    First is meant in row-major order: of the frames that hold the largest value the first, of its rows the first, of
    that row's pixels the first. So a cotangent finds its way an axis at a time, from the first axis to the last. Where
    a window holds NaN, one of its elements takes it; which one is not said.

    Raises:
      Refused: no such form.
    """
    del out
    if form is not None:
        options = {"window": window, "strides": strides, "padding": padding}
        return _form(form, rewritten_axes.max_pool_gradient, options, x, g)
    fill = lowest(x.dtype)
    axes = axes_of(x.shape[1:-1], window, strides, padding)
    values = [x]
    for axis in reversed(axes):
        values.append(reduced(values[-1], axis, fill, jnp.maximum))
    g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    for axis in axes:
        largest, before = values.pop(), values[-1]
        g = _routed(before, largest, g, axis, fill)
    return g.astype(x.dtype)


def _routed(values: jax.Array, largest: jax.Array, g: jax.Array, axis: Axis, fill: np.ndarray) -> jax.Array:
    """Each window's cotangent to the first of its `values` that is the `largest`: `[N, ..., size, ..., C]`."""
    parts, rest = [], g
    zero = jnp.zeros((), g.dtype)
    for tap, value in enumerate(taps(values, axis, fill)[:-1]):
        wins = value == largest
        place = axis.place(tap)
        if place.min() < 0 or place.max() >= axis.size:
            # Padding equals a largest value of -inf, and must not take its cotangent.
            position = lax.broadcasted_iota(jnp.int32, value.shape, axis.number) * axis.stride + (tap - axis.low)
            wins &= (position >= 0) & (position < axis.size)
        parts.append(jnp.where(wins, rest, zero))
        rest = jnp.where(wins, zero, rest)
    parts.append(rest)
    return functools.reduce(operator.add, [untap(part, axis, tap) for tap, part in enumerate(parts)])


def avg_pool(
    x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs, form: str | None = None
) -> jax.Array:
    """Mean of each window of x `[N, *spatial, C]` over the values that are there, summed in float32 or wider.

    Raises:
      Refused: no such form.
    """
    if form is not None:
        options = {"window": window, "strides": strides, "padding": padding}
        return _form(form, rewritten_axes.avg_pool, options, x)
    axes = axes_of(x.shape[1:-1], window, strides, padding)
    total = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in reversed(axes):
        if axis.window == axis.size and axis.out == 1 and axis.low == 0:
            total = total.sum(axis.number, keepdims=True)
        else:
            total = reduced(total, axis, np.zeros((), total.dtype), operator.add)
    return (total / counted(axes, x.ndim)).astype(x.dtype)


def avg_pool_gradient(
    g: jax.Array,
    *,
    spatial: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    form: str | None = None,
) -> jax.Array:
    """What a cotangent g of `avg_pool(x, ...)` means for x `[N, *spatial, C]`: an equal share for each value.

    Raises:
      Refused: no such form.
    """
    if form is not None:
        options = {"spatial": spatial, "window": window, "strides": strides, "padding": padding}
        return _form(form, rewritten_axes.avg_pool_gradient, options, g)
    axes = axes_of(spatial, window, strides, padding)
    share = g.astype(jnp.promote_types(g.dtype, jnp.float32)) / counted(axes, g.ndim)
    for axis in axes:
        share = functools.reduce(operator.add, [untap(share, axis, tap) for tap in range(axis.window)])
    return share.astype(g.dtype)
