"""Convolution of few channels (the RGB stem) on a TPU, from the layout that images arrive in: planes of one colour.

An image `[H, W, 3]` lies in memory as three planes with its columns in lanes. A matrix unit wants the window's pixels
in one axis and the positions in the other. So the *positions* stay in lanes, where they are: `weights @ pixels` gives
`[features, columns]`, and if anything is transposed it is this result. The pixels are lines of the planes, sorted so
that a window's lines lie one after another:

    planes        columns apart         lines sorted           one product
    colour, row   phase, colour, row    row, phase, colour     weights[rows x features, lines] @ lines[., columns]
    [3 H, W]  ->  [phases 3 H, W']  ->  [H phases 3, W']  ->   for a slab of lines that a few rows of the result see

The second step, strided in lanes, and the third, strided in sublanes, are products with matrices of zeros and ones:
exact, and a fraction of the work of the last. A window's further columns are the same lines, moved by a lane. Frames
are rearranged once and kept while a window in time still sees them.

As those products meet more pixels than the window holds, an infinity or NaN makes NaN of more of its image's results.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.pallas import tpu as pltpu

from ..dispatch import Refused
from ..pallas_tpu import call
from .tpu_stem_plan import CHUNK, LANES, Plan, plan, three


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # float32 goes through the matrix unit in several passes, so that choosing by ones is exact for it as well.
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def _rearrange(x_ref, columns_ref, order_ref, apart_ref, frames_ref, slot, cut: Plan, there) -> None:
    """One frame of a few images, `there` in the batch, into `frames_ref[slot]`, `[shifts, tiles, lines, lanes]`."""
    channels = cut.shape[-1]
    lines = cut.phases * channels * CHUNK

    def take_apart(chunk, _):
        row = pl.multiple_of(chunk * CHUNK, CHUNK)
        chosen = []
        for image in range(cut.images):
            planes = jnp.concatenate([x_ref[image, 0, c, pl.ds(row, CHUNK), :] for c in range(channels)], axis=0)
            if there is not None:
                # Beyond the batch's end a block holds anything, and nothing times NaN is NaN.
                planes = jnp.where(image < there, planes, jnp.zeros_like(planes))
            chosen.append(_dot(planes, columns_ref[image]))
        total = sum(chosen[1:], start=chosen[0])
        at = pl.multiple_of((chunk + cut.empty_chunks) * lines, CHUNK)
        for tile in range(cut.tiles):
            for phase in range(cut.phases):
                part = total[:, (tile * cut.phases + phase) * LANES :][:, :LANES]
                first = at + phase * channels * CHUNK
                apart_ref[tile, pl.ds(first, channels * CHUNK), :] = part.astype(apart_ref.dtype)

    lax.fori_loop(0, min(cut.image_chunks, cut.chunks + 1 - cut.empty_chunks), take_apart, None, unroll=2)

    def sort(chunk, _):
        at = pl.multiple_of(chunk * lines, CHUNK)
        to = pl.multiple_of(chunk * CHUNK * cut.lines, CHUNK)
        for tile in range(cut.tiles):
            ordered = _dot(order_ref[...], apart_ref[tile, pl.ds(at, 2 * lines), :]).astype(frames_ref.dtype)
            for shift in range(cut.shifts):
                moved = pltpu.roll(ordered, LANES - shift, 1) if shift else ordered
                frames_ref[slot, shift, tile, pl.ds(to, CHUNK * cut.lines), :] = moved

    lax.fori_loop(0, cut.chunks, sort, None, unroll=2)


def _multiply(weights_ref, frames_ref, out_ref, oldest, cut: Plan, is_turned: bool) -> None:
    """The result of the frames kept, the first of which lies in slot `oldest`."""
    kt, features = cut.window[0], cut.padded_features
    slots = [lax.rem(oldest + frame, kt) for frame in range(kt)]

    def group(number, _):
        at = pl.multiple_of(number * cut.step, CHUNK)
        for tile in range(cut.tiles):
            sums: list[jax.Array | None] = [None] * cut.rows
            for band, begin in zip(cut.bands, cut.depths, strict=False):
                lines = band.stop - band.start
                slabs = [
                    frames_ref[slot, shift, tile, pl.ds(pl.multiple_of(at + band.start, CHUNK), lines), :]
                    for slot in slots
                    for shift in range(cut.shifts)
                ]
                seeing = slice(band.first_row * features, band.last_row * features)
                product = _dot(weights_ref[seeing, begin : begin + cut.pieces * lines], jnp.concatenate(slabs, axis=0))
                for row in range(band.first_row, band.last_row):
                    part = product[(row - band.first_row) * features :][:features]
                    so_far = sums[row]
                    sums[row] = part if so_far is None else so_far + part
            first = tile * cut.tile_columns
            columns = min(cut.tile_columns, cut.result[2] - first)
            for row, total in enumerate(sums):
                assert total is not None  # every row sees some band
                for image in range(cut.images):
                    lanes = slice(image * cut.segment, image * cut.segment + columns)
                    at_row = image, 0, number * cut.rows + row
                    if is_turned:
                        part = total.T.astype(out_ref.dtype)[lanes, : cut.features]
                        out_ref[*at_row, first : first + columns, :] = part
                    else:
                        part = total[: cut.features, lanes].astype(out_ref.dtype)
                        out_ref[*at_row, :, first : first + columns] = part

    lax.fori_loop(0, cut.groups, group, None, unroll=2)


def _stem_kernel(
    x_ref,
    columns_ref,
    order_ref,
    weights_ref,
    out_ref,
    apart_ref,
    frames_ref,
    *,
    cut: Plan,
    batch: int,
    is_turned: bool,
):
    visited = pl.program_id(1)
    there = batch - pl.program_id(0) * cut.images if batch % cut.images else None
    kt, stride = cut.window[0], cut.strides[0]
    slot = lax.rem(visited, kt)
    frame = visited - cut.padding[0][0]
    is_there = (frame >= 0) & (frame < cut.shape[1])

    @pl.when(visited == 0)
    def _():
        apart_ref[...] = jnp.zeros_like(apart_ref)  # the padding above and below, which nothing writes

    @pl.when(is_there)
    def _():
        _rearrange(x_ref, columns_ref, order_ref, apart_ref, frames_ref, slot, cut, there)

    @pl.when(jnp.logical_not(is_there))
    def _():
        frames_ref[slot] = jnp.zeros(frames_ref.shape[1:], frames_ref.dtype)

    @pl.when((visited >= kt - 1) & (lax.rem(visited + stride - (kt - 1) % stride, stride) == 0))
    def _():
        _multiply(weights_ref, frames_ref, out_ref, lax.rem(visited + 1, kt), cut, is_turned)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    columns_in_lanes: int | None = None,
    batch_inside: int = 0,
) -> jax.Array:
    """x `[N, *spatial, C]` with two or three spatial axes, kernel `[*window, C, F]` to `[N, *spatial', F]`.

    `columns_in_lanes=1` leaves the result's columns in the minor axis of memory, 0 puts its features there, as whoever
    convolves or pools next may want. None takes what is padded less, which is how XLA keeps such an array by itself.
    `batch_inside=1` asks XLA to turn the result so that the batch is beside the features, as its convolutions like it:
    alone that costs a copy; before a convolution the copy is made with what lies between, and the whole is faster.

    Raises:
      Refused: one axis, groups, more than 4 channels, or what does not fit the chip.
    """
    if len(strides) == 1:
        raise Refused("the stem kernel takes images and videos, not one spatial axis")
    if groups > 1:
        raise Refused(f"the stem kernel takes one group, not {groups}")
    spread = [(0, 0, step - 1) for step in dilation]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*spread, (0, 0, 0), (0, 0, 0)])
    video = x if x.ndim == 5 else x[:, None]
    kernel = kernel if kernel.ndim == 5 else kernel[None]
    cut = plan(
        video.shape,
        kernel.shape[:3],
        three(strides, 1),
        three(padding, (0, 0)),
        kernel.shape[-1],
        x.dtype.itemsize,
    )
    planes = video.transpose(0, 1, 4, 2, 3)
    if cut.shape[2] % CHUNK:
        below = cut.image_chunks * CHUNK - cut.shape[2]
        planes = lax.pad(planes, jnp.zeros((), x.dtype), [(0, 0, 0)] * 3 + [(0, below, 0), (0, 0, 0)])
    constants = [
        jnp.asarray(cut.columns, x.dtype),
        jnp.asarray(cut.order, x.dtype),
        cut.weights(kernel).astype(x.dtype),
    ]

    def visit(n, visited):
        return n, jnp.clip(visited - cut.padding[0][0], 0, cut.shape[1] - 1), 0, 0, 0

    def emit(n, visited):
        return n, lax.div(jnp.maximum(visited - (cut.window[0] - 1), 0), cut.strides[0]), 0, 0, 0

    if columns_in_lanes is None:
        columns_in_lanes = cut.is_smaller_by_columns
    minor = (cut.features, cut.result[2]) if columns_in_lanes else (cut.result[2], cut.features)
    out = call(
        partial(_stem_kernel, cut=cut, batch=x.shape[0], is_turned=not columns_in_lanes),
        out_shape=jax.ShapeDtypeStruct((x.shape[0], *cut.result[:2], *minor), x.dtype),
        grid=(pl.cdiv(x.shape[0], cut.images), cut.frames),
        in_specs=[
            pl.BlockSpec((cut.images, 1, *planes.shape[2:]), visit),
            *(pl.BlockSpec(a.shape, lambda n, visited, rank=a.ndim: (0,) * rank) for a in constants),
        ],
        out_specs=pl.BlockSpec((cut.images, 1, cut.groups * cut.rows, *minor), emit),
        scratch_shapes=[
            pltpu.VMEM((cut.tiles, (cut.chunks + 1) * cut.phases * cut.shape[-1] * CHUNK, LANES), x.dtype),
            pltpu.VMEM((cut.window[0], cut.shifts, cut.tiles, cut.chunks * CHUNK * cut.lines, LANES), x.dtype),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=cut.bytes + (16 << 20)
        ),
        name="conv_stem",
    )(planes, *constants)
    out = out.swapaxes(-1, -2) if columns_in_lanes else out
    if batch_inside:
        out = with_layout_constraint(out, Layout(major_to_minor=(1, 2, 3, 0, 4)))
    return out if x.ndim == 5 else out[:, 0]
