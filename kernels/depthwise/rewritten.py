"""Depthwise convolution as shifted multiply-adds in plain JAX, for any platform.

A filter a channel has nothing for a matrix unit to do. Written as a sum of shifted products, the compiler fuses it
into one pass over the input, in whatever layout its neighbours have.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..dispatch import Refused

type Pairs = Sequence[tuple[int, int]]

# One multiply-add is written out for every tap; more of them take longer to compile than they save.
_MOST_TAPS = 125


def _check(window: Sequence[int]) -> None:
    if math.prod(window) > _MOST_TAPS:
        raise Refused(f"shifted multiply-adds are written out for at most {_MOST_TAPS} taps, not a window {window}")


def _taps(window: Sequence[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(size) for size in window)))


def _shifted(x: jax.Array, tap: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """What a tap sees of the padded x `[N, *padded, C]`, for every one of `sizes` outputs."""
    last = [first + (size - 1) * stride + 1 for first, size, stride in zip(tap, sizes, strides, strict=True)]
    return lax.slice(x, (0, *tap, 0), (x.shape[0], *last, x.shape[-1]), (1, *strides, 1))


def _padded(x: jax.Array, padding: Pairs, between: Sequence[int]) -> jax.Array:
    each = [(low, high, zeros) for (low, high), zeros in zip(padding, between, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *each, (0, 0, 0)])


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Pairs) -> jax.Array:
    """x `[N, *spatial, C]`, kernel `[*window, 1, C]` to `[N, *spatial', C]` in x's dtype, summed in float32 or wider.

    Raises:
      Refused: a window of more than 125 taps.
    """
    window = kernel.shape[:-2]
    _check(window)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = _padded(x, padding, (0,) * len(window))
    sizes = [(size - k) // s + 1 for size, k, s in zip(padded.shape[1:-1], window, strides, strict=True)]
    terms = (
        _shifted(padded, tap, sizes, strides).astype(wide) * kernel[tap].astype(wide).reshape(-1)
        for tap in _taps(window)
    )
    return sum(terms, start=jnp.zeros((), wide)).astype(x.dtype)


def depthwise_conv_input_gradient(
    g: jax.Array, kernel: jax.Array, *, spatial: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """g `[N, *spatial', C]`, kernel `[*window, 1, C]` to the cotangent of x `[N, *spatial, C]` in g's dtype.

    Raises:
      Refused: a window of more than 125 taps.
    """
    window = kernel.shape[:-2]
    _check(window)
    wide = jnp.promote_types(g.dtype, jnp.float32)
    around = []
    for size, k, s, (low, _), out in zip(spatial, window, strides, padding, g.shape[1:-1], strict=True):
        before = k - 1 - low
        around.append((before, size + k - 1 - before - ((out - 1) * s + 1)))
    padded = _padded(g, around, [s - 1 for s in strides])
    ones = (1,) * len(window)
    terms = (
        _shifted(padded, [k - 1 - i for k, i in zip(window, tap, strict=True)], spatial, ones).astype(wide)
        * kernel[tap].astype(wide).reshape(-1)
        for tap in _taps(window)
    )
    return sum(terms, start=jnp.zeros((), wide)).astype(g.dtype)


def depthwise_conv_weight_gradient(
    x: jax.Array, g: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """x `[N, *spatial, C]`, g `[N, *spatial', C]` to the cotangent of the kernel `[*window, 1, C]`, float32 or wider.

    Raises:
      Refused: a window of more than 125 taps.
    """
    _check(window)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = _padded(x, padding, (0,) * len(window))
    over = tuple(range(x.ndim - 1))
    terms = [
        (_shifted(padded, tap, g.shape[1:-1], strides).astype(wide) * g.astype(wide)).sum(over) for tap in _taps(window)
    ]
    return jnp.stack(terms).reshape(*window, 1, x.shape[-1])
