"""Convolution on Hopper GPUs as an implicit matrix product. Compiled for Hopper; not yet run on hardware.

The product is [pixels, taps x C] by [taps x C, F], and its left side never exists in memory: Hopper's copy engine (TMA)
reads, for 64 channels of one tap, the pixels that a tile of outputs needs, with zeros beyond the edges of an image and
past the last one. So any size and padding is served with no padded copy and no waste at the edges but in the last tile.
One warpgroup does nothing but copy, some steps ahead; two multiply (wgmma), each half of the tile's pixels.
"""

import math
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..dispatch import Refused
from ..pallas_gpu import call, capability, interpreted

_DEPTH = 64  # channels a step: 128 bytes of bfloat16, the widest row that the copy engine can swizzle
AHEAD = 4  # 4 x (256 + 128) x 128 bytes are 192 KiB of the 227 that a Hopper multiprocessor has for a block
_MULTIPLIERS = 2  # warpgroups
_MULTIPROCESSORS = 132  # of an H100
TILES = ((256, 128), (128, 256), (128, 128), (256, 64), (128, 64))  # pixels, features; the least traffic first


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
    pixels: int | None = None,
    features: int | None = None,
) -> jax.Array:
    """Cross-correlation of x `[N, *spatial, C]` with kernel `[*window, C, F]`, bfloat16 accumulated in float32.

    `pixels` (128 or 256) and `features` (a multiple of 64 that divides F, at most 256; with 256 pixels at most 128) are
    a block's share of the output. Compiled for Hopper; not yet run on hardware.

    Raises:
      Refused: another GPU than Hopper, strides, groups, other dtypes, C not a multiple of 8 or F of 64, windows or
        padding beyond the copy engine's offsets, nothing to compute.
    """
    window, (channels, out_features) = kernel.shape[:-2], kernel.shape[-2:]
    reach = tuple((taps - 1) * step + 1 for taps, step in zip(window, dilation, strict=True))
    _refuse(x, kernel, strides, padding, reach, groups)
    out = tuple(size + sum(pair) - k + 1 for size, pair, k in zip(x.shape[1:-1], padding, reach, strict=True))
    rows = x.shape[0] * math.prod(out)
    if math.prod(x.shape) == 0 or min(out) < 1:
        raise Refused(f"conv has nothing to compute of {list(x.shape)} with a window of {window}")
    if pixels is None or features is None:
        pixels, features = _tile(rows, out_features)
    mine = pixels // _MULTIPLIERS
    depths = -(-channels // _DEPTH)
    steps = math.prod(window) * depths
    tiles = out_features // features

    def kernel_body(x_ref, kernel_ref, out_ref, left, right, full, empty):
        warpgroup = lax.axis_index("warpgroup")
        tile = lax.axis_index("tile")
        first_row = lax.div(tile, jnp.int32(tiles)) * pixels
        first_feature = lax.rem(tile, jnp.int32(tiles)) * features
        # JAX's interpreter reads no im2col copies: there, x holds the windows themselves.
        windows = x_ref if interpreted() else plgpu.im2col_ref(x_ref, window_shape=reach, padding=padding)

        @pl.when(warpgroup == _MULTIPLIERS)
        def _():
            plgpu.set_max_registers(40, action="decrease")

            @pl.loop(0, steps)
            def _(step):
                slot = lax.rem(step, jnp.int32(AHEAD))
                pl.when(step >= AHEAD)(lambda: plgpu.barrier_wait(empty.at[slot]))
                tap, depth = lax.div(step, jnp.int32(depths)), lax.rem(step, jnp.int32(depths))
                offsets, rest = [], tap
                for taps, distance in zip(reversed(window), reversed(dilation), strict=True):
                    offsets.insert(0, lax.rem(rest, jnp.int32(taps)) * distance)
                    rest = lax.div(rest, jnp.int32(taps))
                # Both copies read zeros for channels beyond the last.
                some = pl.ds(depth * _DEPTH, _DEPTH)
                source = windows.at[pl.ds(first_row, pixels), *offsets, some]
                plgpu.copy_gmem_to_smem(source, left.at[slot], full.at[slot])
                source = kernel_ref.at[tap, some, pl.ds(first_feature, features)]
                plgpu.copy_gmem_to_smem(source, right.at[slot], full.at[slot])

        @pl.when(warpgroup < _MULTIPLIERS)
        def _():
            plgpu.set_max_registers(232, action="increase")
            share = pl.ds(warpgroup * mine, mine)

            def multiply(total):
                @pl.loop(0, steps)
                def _(step):
                    slot = lax.rem(step, jnp.int32(AHEAD))
                    plgpu.barrier_wait(full.at[slot])
                    plgpu.wgmma(total, left.at[slot, share], right.at[slot])
                    plgpu.wgmma_wait(1)  # The step before is done, this one may still run: the former's slot is free.
                    before = step - 1

                    @pl.when((before >= 0) & (before + AHEAD < steps))
                    def _():
                        plgpu.barrier_arrive(empty.at[lax.rem(before, jnp.int32(AHEAD))])

                return total[...]

            result = pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef((mine, features), jnp.float32)).astype(
                out_ref.dtype
            )
            # Its own rows of the left side, which no other warpgroup reads, are free now and as wide as a store is.
            for slot in range(features // _DEPTH):
                left[slot, share] = result[:, slot * _DEPTH : (slot + 1) * _DEPTH]
            plgpu.commit_smem()
            for slot in range(features // _DEPTH):
                place = pl.ds(first_row + warpgroup * mine, mine), pl.ds(first_feature + slot * _DEPTH, _DEPTH)
                plgpu.copy_smem_to_gmem(left.at[slot, share], out_ref.at[place])
            plgpu.wait_smem_to_gmem(0)

    # The copy engine stores 8 rows at a time, and none beyond the end.
    stored = -(-rows // 8) * 8
    tiling = plgpu.TilingTransform((8, _DEPTH))  # pyright: ignore[reportAbstractUsage]
    swizzled = (tiling, plgpu.SwizzleTransform(128))  # pyright: ignore[reportAbstractUsage]
    result = call(
        kernel_body,
        out_type=jax.ShapeDtypeStruct((stored, out_features), x.dtype),
        name="conv",
        grid=(-(-rows // pixels) * tiles,),
        grid_names=("tile",),
        num_threads=_MULTIPLIERS + 1,
        thread_name="warpgroup",
        scratch_types=(
            plgpu.SMEM((AHEAD, pixels, _DEPTH), x.dtype, transforms=swizzled),
            plgpu.SMEM((AHEAD, _DEPTH, features), x.dtype, transforms=swizzled),
            plgpu.Barrier(num_arrivals=2, num_barriers=AHEAD),
            plgpu.Barrier(num_arrivals=_MULTIPLIERS, num_barriers=AHEAD),
        ),
        # The other semantics, which infer layouts, have no im2col copies.
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
    )(
        _windows(x, reach, padding, out) if interpreted() else x,
        kernel.reshape(math.prod(window), channels, out_features),
    )
    return result[:rows].reshape(x.shape[0], *out, out_features)


def _refuse(x, kernel, strides, padding, reach, groups) -> None:
    channels, features = kernel.shape[-2:]
    # Without a GPU the program is for one elsewhere, which is taken to be a Hopper.
    if not interpreted() and not (here := capability() or "9.0").startswith("9."):
        raise Refused(f"conv on GPU is for Hopper, compute capability 9, and here is {here}")
    if x.dtype != jnp.bfloat16 or kernel.dtype != jnp.bfloat16:
        raise Refused(f"conv on GPU takes bfloat16, got {x.dtype} and {kernel.dtype}")
    if groups != 1:
        raise Refused(f"conv on GPU needs groups=1, got {groups}")
    if set(strides) != {1}:
        raise Refused(f"conv on GPU needs strides of 1, got {strides}")
    if channels % 8:
        raise Refused(f"conv on GPU needs channels in multiples of 8, got {channels}")
    if features % _DEPTH:
        raise Refused(f"conv on GPU needs features in multiples of {_DEPTH}, got {features}")
    # An im2col copy has 16 bits for the offsets within a window, and as many for where windows start and end.
    farthest = 2 ** (16 // len(reach))
    for k, (low, high) in zip(reach, padding, strict=True):
        if k > farthest or low > farthest // 2 or not -farthest // 2 <= high - k + 1 < farthest // 2:
            raise Refused(f"conv on GPU cannot reach {k} pixels with padding {low}, {high} in {len(reach)} dimensions")


def _tile(rows: int, out_features: int) -> tuple[int, int]:
    """Pixels and features of a block: the first of `TILES` that keeps every multiprocessor busy, or else the last."""
    fitting = [(pixels, features) for pixels, features in TILES if out_features % features == 0]
    for pixels, features in fitting:
        if -(-rows // pixels) * (out_features // features) >= _MULTIPROCESSORS:
            return pixels, features
    return fitting[-1]


def _windows(x: jax.Array, reach: tuple[int, ...], padding, out: tuple[int, ...]) -> jax.Array:
    """What `plgpu.im2col_ref` shows of x, as an array `[N x out, *reach, C]`."""
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = [
        padded[:, *(slice(o, o + size) for o, size in zip(offset, out, strict=True))]
        for offset in product(*map(range, reach))
    ]
    windows = jnp.stack([tap.reshape(-1, x.shape[-1]) for tap in taps], axis=1)
    return windows.reshape(-1, *reach, x.shape[-1])
