"""Convolution by matrix products: one of everything that the taps see (im2col), or one for each tap.

Functions of padded blocks: x `[N, *padded, C]` holds the padding already, kernels are `[*window, C, F]`, one group.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from .rewritten_window import Window

# Below this many channels a copy of one tap's pixel is too short to be worth a call of its own.
_FEW_CHANNELS = 16


def dot(a: jax.Array, b: jax.Array, contracted: tuple[int, int] = (1, 0)) -> jax.Array:
    """`a @ b`; with (0, 0) contracted `a.T @ b`, with (1, 1) `a @ b.T`; summed and given in float32 or wider."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    of_a, of_b = contracted
    return lax.dot_general(a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=wide)


def flat(x: jax.Array) -> jax.Array:
    """Pixels as rows: `[pixels, C]`."""
    return x.reshape(-1, x.shape[-1])


def columns(x: jax.Array, window: Window) -> jax.Array:
    """All that a window sees at each of its places, `[N, *outputs, taps x C]`."""
    if x.shape[-1] >= _FEW_CHANNELS or math.prod(window.taps[:-1]) == 1:
        return _columns(x, window)
    # First along the row alone, where all taps of the other axes find it.
    ones = (1,) * (len(window.taps) - 1)
    row = Window((*ones, window.taps[-1]), (*ones, window.strides[-1]), (*ones, window.dilation[-1]))
    rest = Window((*window.taps[:-1], 1), (*window.strides[:-1], 1), (*window.dilation[:-1], 1))
    return _columns(_columns(x, row), rest)


def _columns(x: jax.Array, window: Window) -> jax.Array:
    outputs = window.outputs(x.shape[1:-1])
    # Concatenation copies whole pixels where nothing is fused with it, and chooses value by value otherwise.
    seen = [window.seen(x, tap, outputs) for tap in window.places()]
    return lax.optimization_barrier(lax.concatenate(seen, x.ndim - 1))


def im2col(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """`[N, *outputs, F]` in x's dtype, by one product."""
    seen = columns(x, window)
    out = dot(flat(seen), kernel.reshape(-1, kernel.shape[-1]))
    return out.reshape(*seen.shape[:-1], -1).astype(x.dtype)


def im2col_weight_gradient(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """`[*window, C, F]`, float32 or wider, of g `[N, *outputs, F]`."""
    out = dot(flat(columns(x, window)), flat(g), (0, 0))
    return out.reshape(*window.taps, x.shape[-1], g.shape[-1])


def taps(x: jax.Array, kernel: jax.Array, window: Window, *, turned: bool = False) -> jax.Array:
    """`[N, *outputs, F]` in x's dtype, by a product for each tap; turned: with a kernel `[*window, F, C]`, flipped."""
    outputs = window.outputs(x.shape[1:-1])
    places = window.places()
    # Nothing is flipped or transposed in memory, which for deep kernels takes as long as the products.
    matrices = [kernel[tap] for tap in (reversed(places) if turned else places)]
    contracted = (1, 1) if turned else (1, 0)
    seen = (flat(window.seen(x, tap, outputs)) for tap in places)
    products = [dot(pixels, matrix, contracted) for pixels, matrix in zip(seen, matrices, strict=True)]
    out = functools.reduce(jnp.add, products)
    return out.reshape(x.shape[0], *outputs, -1).astype(x.dtype)


def taps_weight_gradient(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """`[*window, C, F]`, float32 or wider, of g `[N, *outputs, F]`."""
    outputs = g.shape[1:-1]
    each = [dot(flat(window.seen(x, tap, outputs)), flat(g), (0, 0)) for tap in window.places()]
    return jnp.stack(each).reshape(*window.taps, x.shape[-1], g.shape[-1])
