"""Depthwise convolution over time on a TPU: window (k, 1, 1), every frame read once and written once.

Nothing here but moving bytes: all frames of a few rows lie on the chip at once, so that no frame is read again for the
next tap. A convolution in time leaves height, width and channels alone. So the two minor axes may be in either order,
and the kernel takes the one that pads less, which is the one that XLA keeps such an array in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..dispatch import Refused
from ..pallas_tpu import call

type Terms = tuple[tuple[tuple[int, int], ...], ...]

_LANES, _SUBLANES = 128, 8
# A block of this size hides the start of its transfer (measured on 16x56x56x128: 0.5 to 4 MiB are within 1%).
_BLOCK_BYTES = 1 << 20
# The largest: four such blocks, and room for what the compiler keeps, in the 16 MiB that a kernel has by default.
_MOST_BLOCK_BYTES = 3 << 20
# Frames are written out one by one in the program.
_MOST_FRAMES = 64


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class Plan:
    """How videos `[N, T, H, W, C]` are cut into blocks; `width_in_lanes` swaps the last two axes before that."""

    width_in_lanes: bool
    rows: int
    lanes: int


def plan(shape: Sequence[int], frames: int, itemsize: int, rows: int | None) -> Plan:
    """A plan for blocks of up to `frames` frames of videos `[N, T, H, W, C]`; `rows` overrides the heuristic.

    Raises:
      Refused: more frames than a block holds.
    """
    height, width, channels = shape[2:]
    channels_in_lanes = _up(width, _SUBLANES) * _up(channels, _LANES)
    width_in_lanes = _up(channels, _SUBLANES) * _up(width, _LANES) < channels_in_lanes
    sublanes, lanes = (channels, width) if width_in_lanes else (width, channels)
    if frames > _MOST_FRAMES:
        raise Refused(f"depthwise over time holds all frames on the chip, at most {_MOST_FRAMES}, not {frames}")
    while frames * _up(sublanes, _SUBLANES) * _up(lanes, _LANES) * itemsize > _MOST_BLOCK_BYTES:
        if lanes <= _LANES:
            raise Refused(f"depthwise over time: {frames} frames of one row {width}x{channels} do not fit the chip")
        lanes = _up(-(-lanes // 2), _LANES)
    row_bytes = frames * _up(sublanes, _SUBLANES) * _up(lanes, _LANES) * itemsize
    if rows is None:
        rows = max(1, _BLOCK_BYTES // row_bytes)
    return Plan(width_in_lanes, min(rows, height, max(1, _MOST_BLOCK_BYTES // row_bytes)), lanes)


def _blocks(frames: int, sublanes: int, plan: Plan) -> pl.BlockSpec:
    return pl.BlockSpec((1, frames, plan.rows, sublanes, plan.lanes), lambda c, n, r: (n, 0, r, 0, c))


def _kernel_blocks(shape: Sequence[int], plan: Plan) -> pl.BlockSpec:
    taps, sublanes, lanes = shape
    if plan.width_in_lanes:
        return pl.BlockSpec((taps, sublanes, lanes), lambda c, n, r: (0, 0, 0))
    return pl.BlockSpec((taps, 1, plan.lanes), lambda c, n, r: (0, 0, c))


def _grid(array: jax.Array, plan: Plan) -> tuple[int, int, int]:
    batch, _, height, _, lanes = array.shape
    return pl.cdiv(lanes, plan.lanes), batch, pl.cdiv(height, plan.rows)


def _over_rows(block_rows: int, height: int, body) -> None:
    """`body(row)` for the rows of this block that the image has: the last block may hang over its edge."""
    rows = block_rows if height % block_rows == 0 else jnp.minimum(block_rows, height - pl.program_id(2) * block_rows)
    lax.fori_loop(0, rows, lambda row, _: body(row), None)


def _combine_kernel(x_ref, kernel_ref, out_ref, *, terms: Terms, height: int):
    taps = [kernel_ref[tap].astype(jnp.float32) for tap in range(kernel_ref.shape[0])]

    def body(row):
        frames = {}
        for out, summands in enumerate(terms):
            total = jnp.zeros(out_ref.shape[-2:], jnp.float32)
            for frame, tap in summands:
                if frame not in frames:
                    frames[frame] = x_ref[0, frame, row].astype(jnp.float32)
                total += frames[frame] * taps[tap]
            out_ref[0, out, row] = total.astype(out_ref.dtype)

    _over_rows(x_ref.shape[2], height, body)


def _combine(x: jax.Array, kernel: jax.Array, terms: Terms, name: str, rows: int | None) -> jax.Array:
    """`[N, len(terms), H, W, C]`: each result frame the sum of its terms (frame of x, tap of the kernel)."""
    cut = plan(x.shape, max(x.shape[1], len(terms)), x.dtype.itemsize, rows)
    kernel = kernel.reshape(kernel.shape[0], 1, -1)
    if cut.width_in_lanes:
        x, kernel = x.swapaxes(-1, -2), kernel.swapaxes(-1, -2)
    result = jax.ShapeDtypeStruct((x.shape[0], len(terms), *x.shape[2:]), x.dtype)
    out = call(
        partial(_combine_kernel, terms=terms, height=x.shape[2]),
        out_shape=result,
        grid=_grid(x, cut),
        in_specs=[_blocks(x.shape[1], x.shape[3], cut), _kernel_blocks(kernel.shape, cut)],
        out_specs=_blocks(len(terms), x.shape[3], cut),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        name=name,
    )(x, kernel)
    return out.swapaxes(-1, -2) if cut.width_in_lanes else out


def _forward_terms(frames: int, outputs: int, taps: int, stride: int, low: int) -> Terms:
    """For each result frame the (input frame, tap) that it sums; padding contributes nothing."""
    return tuple(
        tuple((out * stride + tap - low, tap) for tap in range(taps) if 0 <= out * stride + tap - low < frames)
        for out in range(outputs)
    )


def forward(x: jax.Array, kernel: jax.Array, *, stride: int, padding: tuple[int, int], rows: int | None) -> jax.Array:
    """x `[N, T, H, W, C]`, kernel `[k, 1, 1, 1, C]` to `[N, T', H, W, C]`."""
    outputs = (x.shape[1] + sum(padding) - kernel.shape[0]) // stride + 1
    terms = _forward_terms(x.shape[1], outputs, kernel.shape[0], stride, padding[0])
    return _combine(x, kernel, terms, "depthwise_temporal", rows)


def input_gradient(
    g: jax.Array, kernel: jax.Array, *, frames: int, stride: int, padding: tuple[int, int], rows: int | None
) -> jax.Array:
    """g `[N, T', H, W, C]`, kernel `[k, 1, 1, 1, C]` to the cotangent of x `[N, frames, H, W, C]`."""
    back: list[list[tuple[int, int]]] = [[] for _ in range(frames)]
    for out, summands in enumerate(_forward_terms(frames, g.shape[1], kernel.shape[0], stride, padding[0])):
        for frame, tap in summands:
            back[frame].append((out, tap))
    return _combine(g, kernel, tuple(map(tuple, back)), "depthwise_temporal_input_gradient", rows)


def _weight_kernel(x_ref, g_ref, out_ref, sum_ref, *, terms: Terms, height: int, axis: int):
    first = (pl.program_id(1) == 0) & (pl.program_id(2) == 0)

    @pl.when(first)
    def _():
        out_ref[...] = jnp.zeros_like(out_ref)

    sum_ref[...] = jnp.zeros_like(sum_ref)

    def body(row):
        frames = {}
        sums = [jnp.zeros(x_ref.shape[-2:], jnp.float32) for _ in range(sum_ref.shape[0])]
        for out, summands in enumerate(terms):
            g = g_ref[0, out, row].astype(jnp.float32)
            for frame, tap in summands:
                if frame not in frames:
                    frames[frame] = x_ref[0, frame, row].astype(jnp.float32)
                sums[tap] += frames[frame] * g
        for tap, total in enumerate(sums):
            sum_ref[tap] += total

    _over_rows(x_ref.shape[2], height, body)
    out_ref[...] += sum_ref[...].sum(axis, keepdims=True)


def weight_gradient(
    x: jax.Array, g: jax.Array, *, taps: int, stride: int, padding: tuple[int, int], rows: int | None
) -> jax.Array:
    """x `[N, T, H, W, C]`, g `[N, T', H, W, C]` to the cotangent of the kernel `[taps, 1, 1, 1, C]`, float32."""
    channels = x.shape[-1]
    cut = plan(x.shape, max(x.shape[1], g.shape[1]), x.dtype.itemsize, rows)
    terms = _forward_terms(x.shape[1], g.shape[1], taps, stride, padding[0])
    if cut.width_in_lanes:
        x, g = x.swapaxes(-1, -2), g.swapaxes(-1, -2)
        if cut.lanes < x.shape[-1]:
            raise Refused(f"depthwise over time: rows of {x.shape[-1]} pixels are too wide for a sum over them")
    axis = 2 if cut.width_in_lanes else 1
    result = jax.ShapeDtypeStruct((taps, channels, 1) if cut.width_in_lanes else (taps, 1, channels), jnp.float32)
    out = call(
        partial(_weight_kernel, terms=terms, height=x.shape[2], axis=axis),
        out_shape=result,
        grid=_grid(x, cut),
        in_specs=[_blocks(a.shape[1], a.shape[3], cut) for a in (x, g)],
        out_specs=_kernel_blocks(result.shape, cut),
        scratch_shapes=[pltpu.VMEM((taps, x.shape[-2], cut.lanes), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        name="depthwise_temporal_weight_gradient",
    )(x, g)
    return out.reshape(taps, 1, 1, 1, channels)


def as_video(x: jax.Array) -> jax.Array:
    """`[N, T, *others, C]` with one or no or two others, to `[N, T, H, W, C]`."""
    ones = (1,) * (5 - x.ndim)
    return x.reshape(*x.shape[:2], *ones, *x.shape[2:])


def is_temporal(window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> bool:
    """Whether a convolution moves along the first axis alone."""
    return math.prod(window[1:]) == 1 and set(strides[1:]) <= {1} and not any(map(sum, padding[1:]))
