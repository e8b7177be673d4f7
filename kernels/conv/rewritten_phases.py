"""The input gradient of convolution as convolutions of the cotangent without strides.

Without strides it is one, with the kernel turned round. With stride 2 an even pixel met the even taps alone and an odd
pixel the odd ones: each phase of the pixels has a convolution of its own, with its share of the taps, and no product
has a zero that was put between the cotangent's values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from ..images import interleaved
from .rewritten_window import Pairs, Window, padded

type Convolve = Callable[[jax.Array, jax.Array, Window, Pairs], jax.Array]
"""A convolution of `[N, *spatial, F]` with `[*window, C, F]` turned; padding may be negative."""


@dataclass(frozen=True)
class _Phase:
    taps: slice  # those that pixels of this phase met
    count: int
    dilation: int
    padding: tuple[int, int]


def turned(kernel: jax.Array) -> jax.Array:
    """`[*window, C, F]` to `[*window, F, C]`, flipped along the window."""
    # Both at once, or either fused with what reads it, took XLA's CPU backend 2 to 5 times as long.
    flipped = lax.optimization_barrier(jnp.flip(kernel, range(kernel.ndim - 2)))
    return lax.optimization_barrier(flipped.swapaxes(-1, -2))


def input_gradient(
    g: jax.Array, kernel: jax.Array, window: Window, padding: Pairs, spatial: Sequence[int], convolve: Convolve
) -> jax.Array:
    """g `[N, *outputs, F]`, kernel `[*window, C, F]` to the cotangent of x `[N, *spatial, C]` in g's dtype."""
    axes = len(spatial)
    ones = (1,) * axes
    each = list(zip(spatial, window.taps, window.strides, window.dilation, padding, g.shape[1:-1], strict=True))
    # Along an axis of one tap only one phase has any: zeros go between its pixels in the end.
    apart = [taps == 1 for taps in window.taps]
    phases = [
        [_Phase(slice(None), 1, 1, (0, 0))] if one else _phases(*numbers)
        for one, numbers in zip(apart, each, strict=True)
    ]
    source = lax.optimization_barrier(g) if any(len(of_axis) > 1 for of_axis in phases) else g

    def one(chosen: Sequence[_Phase]) -> jax.Array:
        part = kernel[tuple(phase.taps for phase in chosen)]
        pads = tuple(phase.padding for phase in chosen)
        if part.size == 0:
            beyond = [max(phase.count - 1, 0) * phase.dilation for phase in chosen]
            sizes = (n + sum(pair) - more for n, pair, more in zip(g.shape[1:-1], pads, beyond, strict=True))
            return jnp.zeros((g.shape[0], *sizes, kernel.shape[-2]), g.dtype)
        sub = Window(tuple(phase.count for phase in chosen), ones, tuple(phase.dilation for phase in chosen))
        return convolve(source, part, sub, pads)

    def from_axis(chosen: tuple[_Phase, ...]) -> jax.Array:
        """All phases of the axes behind those whose phases are given, put together."""
        axis = len(chosen)
        if axis == axes:
            return one(chosen)
        return interleaved([from_axis((*chosen, phase)) for phase in phases[axis]], axis + 1)

    dx = from_axis(())
    ends = [
        (-low, size + low - ((there - 1) * stride + 1)) if lone else (0, size - there)
        for lone, (size, _, stride, _, (low, _), _), there in zip(apart, each, dx.shape[1:-1], strict=True)
    ]
    return padded(dx, ends, [stride - 1 if lone else 0 for lone, stride in zip(apart, window.strides, strict=True)])


def _phases(size: int, taps: int, stride: int, dilation: int, pads: tuple[int, int], outputs: int) -> list[_Phase]:
    """Every phase of an axis: pixel `q * stride + phase` of x has the sum over j of `kernel[first + j * step]` times
    `g[q + shift - j * spacing]`.
    """
    common = math.gcd(stride, dilation)
    step, spacing = stride // common, dilation // common
    each = -(-size // stride)  # pixels of a phase
    found = []
    for place in range(pads[0], pads[0] + stride):
        first = next((t for t in range(min(taps, step)) if (place - t * dilation) % stride == 0), None)
        if first is None:
            found.append(_Phase(slice(0, 0), 0, 1, (0, each - outputs)))
            continue
        count = len(range(first, taps, step))
        shift = (place - first * dilation) // stride
        padding = ((count - 1) * spacing - shift, each + shift - outputs)
        found.append(_Phase(slice(first, None, step), count, spacing, padding))
    return found


def count(window: Window) -> int:
    """Convolutions that the input gradient is made of."""
    return math.prod(s for s, k in zip(window.strides, window.taps, strict=True) if k > 1)
