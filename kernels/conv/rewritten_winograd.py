"""Winograd's F(2x2, 3x3) convolution (Lavin and Gray 2015, arXiv:1509.09308) by plain matrix products.

Tiles of 4x4 pixels make 2x2 outputs with 16 products of channels where 36 were needed. The products are 16 plain
ones, of all tiles' pixels by a transformed kernel each. Transforms add and subtract only; float32 results are off by
about 1e-6 of the largest. An infinity or NaN in x makes NaN of all outputs of its tiles, and spreads from the kernel
likewise. Functions of padded blocks, as in `rewritten_products.py`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .rewritten_frames import on_channels
from .rewritten_products import dot, flat
from .rewritten_window import Window, padded

TILE = 4
OUTPUTS = 2


def transformed_kernel(kernel: jax.Array, *, turned: bool = False) -> list[list[jax.Array]]:
    """Kernel `[(kt,) 3, 3, C, F]` to 4x4 of `[(kt x) C, F]`, float32 or wider; turned: flipped, `[(kt x) F, C]` of it.

    Turned matrices are `[C, (kt x) F]`, to be contracted over their last axis: `conv` is to be told.
    """
    if turned:
        kernel = kernel[::-1] if kernel.ndim == 5 else kernel
    if kernel.ndim == 5:
        # Frames side by side, on the axis that is contracted.
        kernel = jnp.moveaxis(kernel, 0, 3 if turned else 2)
        *_, a, b, c = kernel.shape
        kernel = kernel.reshape(3, 3, a, b * c) if turned else kernel.reshape(3, 3, a * b, c)
    kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))

    def along(a: jax.Array, b: jax.Array, c: jax.Array) -> list[jax.Array]:
        a, c = (c, a) if turned else (a, c)
        return [a, (a + c + b) * 0.5, (a + c - b) * 0.5, c]

    rows = along(kernel[0], kernel[1], kernel[2])
    each = [along(row[0], row[1], row[2]) for row in rows]
    return [list(lax.optimization_barrier(tuple(row))) for row in each]


def conv(
    x: jax.Array, transformed: Sequence[Sequence[jax.Array]], window: Window, *, turned: bool = False
) -> jax.Array:
    """x `[N, *padded, C]`, a kernel as `transformed_kernel` has it, to `[N, *outputs, F]` in x's dtype."""
    outputs = window.outputs(x.shape[1:-1])
    frames = x if len(window.taps) == 2 else on_channels(x, window)
    height, width = (-(-size // OUTPUTS) for size in outputs[-2:])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    missing = [OUTPUTS * tiles + 2 - size for tiles, size in zip((height, width), frames.shape[1:3], strict=True)]
    frames = lax.optimization_barrier(padded(frames, [(0, n) for n in missing]).astype(wide))

    def input_transform(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a - c, b + c, c - b, b - d]

    def output_transform(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + b + c, b - c - d]

    def every_second(x: jax.Array, axis: int, tiles: int) -> list[jax.Array]:
        return [lax.slice_in_dim(x, i, i + OUTPUTS * (tiles - 1) + 1, OUTPUTS, axis) for i in range(TILE)]

    sums = []
    for row, kernels in zip(input_transform(*every_second(frames, 1, height)), transformed, strict=True):
        tiles = input_transform(*every_second(lax.optimization_barrier(row), 2, width))
        products = [
            dot(flat(lax.optimization_barrier(tile)), matrix, (1, 1) if turned else (1, 0))
            for tile, matrix in zip(tiles, kernels, strict=True)
        ]
        sums.append(output_transform(*products))
    rows = [output_transform(*(of_row[column] for of_row in sums)) for column in range(OUTPUTS)]
    features = rows[0][0].shape[-1]
    each = [[rows[column][row] for column in range(OUTPUTS)] for row in range(OUTPUTS)]
    # Neighbours in a row side by side are that row already; then rows in turn.
    joined = [lax.concatenate(lax.optimization_barrier(tuple(pair)), 1) for pair in each]
    out = jnp.stack([row.reshape(-1, height, width * OUTPUTS * features) for row in joined], 2)
    out = out.reshape(-1, height * OUTPUTS, width * OUTPUTS, features)
    out = lax.slice(out, (0,) * 4, (out.shape[0], *outputs[-2:], features))
    return out.reshape(x.shape[0], *outputs, features).astype(x.dtype)
