"""Depthwise convolution of images on a TPU, stride 1: every pixel read once, in whatever order of axes it lies.

What is expensive on a TPU is not the multiplication but moving a row by a pixel, and turning an array over. XLA keeps
an array `[N, H, W, C]` in the order that is padded least, and the kernel takes it so: with channels in lanes and the
width in sublanes, the other way round if the row is long and the channels are few, or with the batch in sublanes if no
row fills them. In the first two, all products of one column of the window are summed before their sum is moved along
the row, once; in the last a pixel is a tile of its own, and nothing moves.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..dispatch import Refused
from ..pallas_tpu import call

type Pairs = Sequence[tuple[int, int]]

_LANES, _SUBLANES = 128, 8
# Images in a block, and channels of more than one block: their sums and a window of them stay in registers.
_BATCH, _CHANNELS = 8, 256
# Columns of the result that are summed at a time where a pixel is a tile: 4 sums and a pixel leave registers for taps.
_COLUMNS = 4
# An image, of which two come in and two go out in the 64 MiB that the kernel asks for.
_MOST_IMAGE_BYTES = 12 << 20
_VMEM_BYTES = 64 << 20
# One multiply-add is written out for every tap.
_MOST_TAPS = 49


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _order(batch: int, width: int, channels: int) -> tuple[int, int, int, int]:
    """The order of `[N, H, W, C]` in which its minor axes are padded least; that of XLA too."""
    by_channels = _up(width, _SUBLANES) * _up(channels, _LANES)
    by_width = _up(channels, _SUBLANES) * _up(width, _LANES)
    if batch % _BATCH == 0 and width * _up(channels, _LANES) < min(by_channels, by_width):
        return 1, 2, 0, 3
    return (0, 1, 3, 2) if by_width < by_channels else (0, 1, 2, 3)


def _moved(row: jax.Array, by: int, axis: int, size: int) -> jax.Array:
    """The `size` values of a row from `by` on, along an axis; beyond its ends there are zeros."""
    there = row.shape[axis]

    def zeros(count: int) -> list[jax.Array]:
        return [jnp.zeros([count if a == axis else s for a, s in enumerate(row.shape)], row.dtype)] if count else []

    inside = lax.slice_in_dim(row, max(by, 0), min(by + size, there), axis=axis)
    parts = [*zeros(max(-by, 0)), inside, *zeros(max(by + size - there, 0))]
    return jnp.concatenate(parts, axis=axis) if len(parts) > 1 else inside


def _over_rows(height: int, result: int, low: int, window: int, row) -> None:
    """`row(number, taps)` for each row of the result, with the taps of the window's column that the image has there."""
    # Where the window lies within the image, one body serves every row; above and below, each row has its own.
    first = min(low, result)
    last = max(min(height + low - window + 1, result), first)
    for number in (*range(first), *range(last, result)):
        row(number, [i for i in range(window) if 0 <= number + i - low < height])
    lax.fori_loop(first, last, lambda number, _: row(number, list(range(window))), None)


def _moving_kernel(x_ref, kernel_ref, out_ref, *, low: tuple[int, int], axis: int):
    """x `[1, H, W, C]` or `[1, H, C, W]`; `axis` says which of the last two is the width."""
    (kh, kw), width = kernel_ref.shape[:2], out_ref.shape[2 + axis]
    taps = [[kernel_ref[i, j].astype(jnp.float32) for j in range(kw)] for i in range(kh)]

    def row(number, seen):
        lines = [x_ref[0, number + i - low[0]].astype(jnp.float32) for i in seen]
        total = jnp.zeros(out_ref.shape[2:], jnp.float32)
        for j in range(kw):
            by = j - low[1]
            if seen and -width < by < x_ref.shape[2 + axis]:
                products = [line * taps[i][j] for i, line in zip(seen, lines, strict=True)]
                total += _moved(sum(products[1:], start=products[0]), by, axis, width)
        out_ref[0, number] = total.astype(out_ref.dtype)

    _over_rows(x_ref.shape[1], out_ref.shape[1], low[0], kh, row)


def _standing_kernel(x_ref, kernel_ref, out_ref, *, low: tuple[int, int]):
    """x `[H, W, N, C]`: a pixel of all images of the block is a tile."""
    kh, kw = kernel_ref.shape[:2]
    width, result = x_ref.shape[1], out_ref.shape[1]
    taps = [[kernel_ref[i, j].astype(jnp.float32) for j in range(kw)] for i in range(kh)]

    def row(number, seen):
        for first in range(0, result, _COLUMNS):
            columns = range(first, min(first + _COLUMNS, result))
            sums = {column: jnp.zeros(out_ref.shape[2:], jnp.float32) for column in columns}
            for i in seen:
                for at in range(max(0, first - low[1]), min(width, columns[-1] + kw - low[1])):
                    pixel = x_ref[number + i - low[0], at].astype(jnp.float32)
                    for column in columns:
                        if 0 <= at - column + low[1] < kw:
                            sums[column] += pixel * taps[i][at - column + low[1]]
            for column, total in sums.items():
                out_ref[number, column] = total.astype(out_ref.dtype)

    _over_rows(x_ref.shape[0], out_ref.shape[0], low[0], kh, row)


def correlate(x: jax.Array, kernel: jax.Array, *, padding: Pairs, name: str) -> jax.Array:
    """x `[N, H, W, C]`, kernel `[kh, kw, 1, C]` to `[N, H', W', C]`, stride 1; padding is not negative.

    Raises:
      Refused: a window of more than 49 taps, or an image that does not fit the chip.
    """
    kh, kw = kernel.shape[:2]
    if kh * kw > _MOST_TAPS:
        raise Refused(f"depthwise on images writes out at most {_MOST_TAPS} taps, not {kh}x{kw}")
    batch, height, width, channels = x.shape
    size = (height + sum(padding[0]) - kh + 1, width + sum(padding[1]) - kw + 1)
    order = _order(batch, width, channels)
    result = jax.ShapeDtypeStruct(tuple((batch, *size, channels)[axis] for axis in order), x.dtype)
    x = x.transpose(order)
    low = (padding[0][0], padding[1][0])

    lanes = channels
    if order[0] == 1:
        lanes = min(channels, _LANES)
        body, blocked = partial(_standing_kernel, low=low), (0, 0, _BATCH, lanes)
    else:
        if order[3] == 3:
            lanes = min(channels, _CHANNELS)
        else:
            kernel = kernel.swapaxes(-1, -2)
        body = partial(_moving_kernel, low=low, axis=order.index(2) - 2)
        blocked = (1, 0, 0, lanes if order[3] == 3 else 0)

    def block(shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(part or whole for part, whole in zip(blocked, shape, strict=True))

    def at(n, c):
        return (0, 0, n, c) if order[0] == 1 else (n, 0, 0, c)

    blocks = [block(x.shape), block(result.shape)]
    for rows, columns, sublanes, minor in blocks:
        if rows * columns * _up(sublanes, _SUBLANES) * _up(minor, _LANES) * x.dtype.itemsize > _MOST_IMAGE_BYTES:
            raise Refused(f"depthwise on images holds one on the chip, {height}x{width}x{channels} does not fit")
    of_kernel = (kh, kw, *((1, lanes) if order[3] == 3 else (channels, 1)))
    out = call(
        body,
        out_shape=result,
        grid=(pl.cdiv(batch, _BATCH) if order[0] == 1 else batch, pl.cdiv(channels, lanes)),
        in_specs=[pl.BlockSpec(blocks[0], at), pl.BlockSpec(of_kernel, lambda n, c: (0, 0, 0, c))],
        out_specs=pl.BlockSpec(blocks[1], at),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM_BYTES
        ),
        name=name,
    )(x, kernel)
    return out.transpose([order.index(axis) for axis in range(4)])


def is_spatial(window: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a convolution moves over two axes a pixel at a time."""
    return len(window) == 2 and set(strides) <= {1}
