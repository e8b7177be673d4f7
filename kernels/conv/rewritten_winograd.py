"""Winograd's F(2x2, 3x3) convolution (Lavin and Gray 2015, arXiv:1509.09308) by plain matrix products.

Of the forward pass, of the input gradient (turned) and of the weight gradient. Tiles of 4x4 pixels make 2x2 outputs
with 16 products of channels where 36 were needed. The products are 16 plain ones, of all tiles' pixels by a transformed
kernel each, or by what the outputs' gradient makes of them. Transforms add and subtract only; float32 results are off
by about 1e-6 of the largest. An infinity or NaN in x makes NaN of all outputs of its tiles, and spreads from the kernel
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
    frames = _filled(frames, OUTPUTS * height + 2, OUTPUTS * width + 2).astype(wide)
    frames = lax.optimization_barrier(frames)

    def output_transform(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + b + c, b - c - d]

    sums = []
    for row, kernels in zip(_input_transform(_every_second(frames, 1, height)), transformed, strict=True):
        tiles = _input_transform(_every_second(lax.optimization_barrier(row), 2, width))
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


def weight_gradient(x: jax.Array, g: jax.Array, window: Window) -> jax.Array:
    """x `[N, *padded, C]` and g `[N, *outputs, F]` to 4x4 of `[(kt x) C, F]`, float32 or wider.

    They may be summed over blocks; `of_kernel` makes the kernel's gradient of the sum.
    """
    frames = x if len(window.taps) == 2 else on_channels(x, window)
    g = g.reshape(-1, *g.shape[-3:])
    height, width = (-(-size // OUTPUTS) for size in g.shape[1:3])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    frames = _filled(frames, OUTPUTS * height + 2, OUTPUTS * width + 2).astype(wide)
    g = _filled(g, OUTPUTS * height, OUTPUTS * width).astype(wide)
    frames, g = lax.optimization_barrier((frames, g))

    def spread(a: jax.Array, b: jax.Array) -> list[jax.Array]:
        return [a, a + b, a - b, b]  # of a pair of outputs to its tile; the last one's sign is `of_kernel`'s

    sums = []
    of_rows = _input_transform(_every_second(frames, 1, height)), spread(*_every_second(g, 1, height, OUTPUTS))
    for row, of_row in zip(*of_rows, strict=True):
        row, of_row = lax.optimization_barrier((row, of_row))
        tiles = _input_transform(_every_second(row, 2, width)), spread(*_every_second(of_row, 2, width, OUTPUTS))
        for tile, of_tile in zip(*tiles, strict=True):
            tile, of_tile = lax.optimization_barrier((tile, of_tile))
            sums.append(dot(flat(tile), flat(of_tile), (0, 0)))
    return jnp.stack(sums).reshape(TILE, TILE, *sums[0].shape)


def of_kernel(sums: jax.Array, window: Window) -> jax.Array:
    """What `weight_gradient` gives to the gradient of a kernel, `[(kt,) 3, 3, C, F]`."""

    def along(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + (b + c) * 0.5, (b - c) * 0.5, (b + c) * 0.5 - d]

    rows = along(*sums)
    kernel = jnp.stack([jnp.stack(along(*row)) for row in rows])
    if len(window.taps) == 2:
        return kernel
    frames = window.taps[0]
    return jnp.moveaxis(kernel.reshape(3, 3, frames, -1, kernel.shape[-1]), 2, 0)


def _filled(x: jax.Array, height: int, width: int) -> jax.Array:
    """x `[N, H, W, C]` with zeros behind it up to so many rows and columns."""
    return padded(x, [(0, height - x.shape[1]), (0, width - x.shape[2])])


def _every_second(x: jax.Array, axis: int, tiles: int, count: int = TILE) -> list[jax.Array]:
    """The first to the `count`th row or column of all tiles."""
    return [lax.slice_in_dim(x, i, i + OUTPUTS * (tiles - 1) + 1, OUTPUTS, axis) for i in range(count)]


def _input_transform(lines: Sequence[jax.Array]) -> list[jax.Array]:
    a, b, c, d = lines
    return [a - c, b + c, c - b, b - d]
