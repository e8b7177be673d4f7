"""Convolution a block of outputs at a time, so that what a form makes of its input lies in cache and costs no memory.

A block is some images, or some frames or rows of one image: whole axes from the last one on, a part of one axis, and
one of every axis before it.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .rewritten_window import Pairs, Window, padded


def block_sizes(outputs: Sequence[int], pixels: int, *, exact: bool) -> tuple[int, ...]:
    """How much of every axis of `[N, *outputs]` is in a block of at most `pixels` outputs, or of one row of them.

    exact: blocks divide the axis, so that no block has outputs beyond its end. The batch is always divided so, and
    any axis where that makes blocks not much smaller.
    """
    sizes, count = [outputs[-1]], outputs[-1]
    for axis in range(len(outputs) - 2, -1, -1):
        whole, most = outputs[axis], max(1, pixels // count)
        size = min(whole, most)
        if size < whole:
            divisor = max(n for n in range(1, size + 1) if whole % n == 0)
            balanced = -(-whole // -(-whole // size))
            size = divisor if exact or axis == 0 or divisor > size // 2 else balanced
        sizes.append(size)
        count = count * size if size == whole else pixels + 1
    return tuple(reversed(sizes))


def forward(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, window: Window, padding: Pairs, pixels: int
) -> jax.Array:
    """x `[N, *spatial, C]` to `[N, *outputs, F]` by `function` of padded blocks, which pads nothing itself."""
    outputs = window.outputs([n + sum(pads) for n, pads in zip(x.shape[1:-1], padding, strict=True)])
    block = block_sizes((x.shape[0], *outputs), pixels, exact=False)
    steps = [-(-size // of) for size, of in zip((x.shape[0], *outputs), block, strict=True)]
    x = _to_span(x, window, padding, [n * of for n, of in zip(steps[1:], block[1:], strict=True)])
    if math.prod(steps) == 1:
        return function(x)
    spans = (block[0], *window.spans(block[1:]), x.shape[-1])
    x = lax.optimization_barrier(x)
    out = lax.map(
        lambda number: function(lax.dynamic_slice(x, _start(number, steps, block, window.strides), spans)),
        jnp.arange(math.prod(steps)),
    )
    # Blocks hold one of each axis before the one that was cut, so they lie in memory as the whole does.
    out = out.reshape(*(n * of for n, of in zip(steps, block, strict=True)), out.shape[-1])
    return lax.slice(out, (0,) * out.ndim, (x.shape[0], *outputs, out.shape[-1]))


def weight_gradient(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    g: jax.Array,
    window: Window,
    padding: Pairs,
    pixels: int,
) -> jax.Array:
    """The sum of `function` over padded blocks of x `[N, *spatial, C]` and of g `[N, *outputs, F]`."""
    block = block_sizes(g.shape[:-1], pixels, exact=True)
    steps = [size // of for size, of in zip(g.shape[:-1], block, strict=True)]
    x = _to_span(x, window, padding, g.shape[1:-1])
    if math.prod(steps) == 1:
        return function(x, g)
    spans = (block[0], *window.spans(block[1:]), x.shape[-1])
    x = lax.optimization_barrier(x)

    def add(number: jax.Array, so_far: jax.Array) -> jax.Array:
        of_x = lax.dynamic_slice(x, _start(number, steps, block, window.strides), spans)
        of_g = lax.dynamic_slice(g, _start(number, steps, block, (1,) * len(window.taps)), (*block, g.shape[-1]))
        return so_far + function(of_x, of_g)

    of_g = jax.ShapeDtypeStruct((*block, g.shape[-1]), g.dtype)
    made = jax.eval_shape(function, jax.ShapeDtypeStruct(spans, x.dtype), of_g)
    return lax.fori_loop(0, math.prod(steps), add, jnp.zeros(made.shape, made.dtype))


def _to_span(x: jax.Array, window: Window, padding: Pairs, outputs: Sequence[int]) -> jax.Array:
    """x with its padding, and with neither more nor less behind it than so many outputs see."""
    spans = window.spans(outputs)
    sizes = x.shape[1:-1]
    return padded(x, [(low, span - low - n) for (low, _), span, n in zip(padding, spans, sizes, strict=True)])


def _start(number: jax.Array, steps: Sequence[int], block: Sequence[int], strides: Sequence[int]) -> tuple:
    image, *place = jnp.unravel_index(number, tuple(steps))
    first = (p * size * stride for p, size, stride in zip(place, block[1:], strides, strict=True))
    return (image * block[0], *first, jnp.zeros((), image.dtype))
