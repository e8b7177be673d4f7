"""The input gradient of a strided depthwise convolution, a phase at a time, for CPUs.

With stride 2 an even pixel met the even taps alone and an odd pixel the odd ones. So the even pixels' gradient is a
stride 1 correlation of g with the even taps. No product has a zero that was put between g's values: a quarter of the
work, for stride 2 on both axes.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..images import interleaved
from .shifts import Pairs, padded, shifted


def input_gradient(
    g: jax.Array, kernel: jax.Array, *, spatial: Sequence[int], strides: Sequence[int], padding: Pairs
) -> jax.Array:
    """g `[N, *spatial', C]`, kernel `[*window, 1, C]` to the cotangent of x `[N, *spatial, C]` in g's dtype."""
    window, axes = kernel.shape[:-2], len(spatial)
    wide = jnp.promote_types(g.dtype, jnp.float32)
    each = list(zip(spatial, window, strides, padding, g.shape[1:-1], strict=True))
    most = [-(-k // s) for _, k, s, _, _ in each]  # taps of a phase
    steps = [-(-(size + low) // s) for size, _, s, (low, _), _ in each]
    # Outputs beyond the last step saw nothing but padding: what is added behind can be negative.
    around = [(j - 1, q - out) for j, q, (*_, out) in zip(most, steps, each, strict=True)]
    source = lax.optimization_barrier(padded(g, around))

    def phase(offsets: tuple[int, ...]) -> jax.Array:
        total = jnp.zeros((g.shape[0], *steps, g.shape[-1]), wide)
        for back in itertools.product(*map(range, most)):
            tap = tuple(r + j * s for r, j, s in zip(offsets, back, strides, strict=True))
            if all(t < k for t, k in zip(tap, window, strict=True)):
                first = [j - 1 - b for j, b in zip(most, back, strict=True)]
                seen = shifted(source, first, steps, (1,) * axes)
                total = total + seen.astype(wide) * kernel[tap].astype(wide).reshape(-1)
        return total.astype(g.dtype)

    def from_axis(offsets: tuple[int, ...]) -> jax.Array:
        """All phases of the axes behind those whose offsets are given, put together."""
        axis = len(offsets)
        if axis == axes:
            return phase(offsets)
        return interleaved([from_axis((*offsets, r)) for r in range(strides[axis])], axis + 1)

    lows = [low for low, _ in padding]
    ends = [low + size for low, size in zip(lows, spatial, strict=True)]
    return lax.slice(from_axis(()), (0, *lows, 0), (g.shape[0], *ends, g.shape[-1]))
