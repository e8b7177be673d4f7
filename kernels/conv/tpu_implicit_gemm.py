"""What the TPU kernels of convolution share: how an image lies in VMEM, and windows as products of its rows.

Inputs of one, two or three spatial axes are seen as frames, rows and columns. The batch lies inside the columns,
`[frames, rows, columns, N, C]`, as XLA's own convolutions like it, or outside, `[N, frames, rows, columns, C]`. Either
way a row is a matrix `[columns * inside, C]`, `inside` being N or 1, and the pixel to the right is `inside` lines down.

A block's rows are copied into a scratch with their padding. Where `inside` is a multiple of 8 the lines that a tap of
the window needs start on a tile, so one plane a stride's phase serves all taps; otherwise every tap has a plane of its
own, shifted once, when the row is copied. Frames and rows are addresses and never move. The lines of several taps, side
by side in lanes, times the kernel's matrix for these taps are one product.

With `fold` rows of outputs in one product, side by side in lanes, a kernel of few features fills the matrix unit. The
kernel's matrix then holds the kernel `fold` times, each a row lower, with zeros between, and the products for those
zeros are the price: an infinity or NaN in x makes NaN of the outputs that share a product with those that see it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .tpu_geometry import Geometry

# Bytes of VMEM that a kernel's buffers may take, and what the compiler is told. v5e and v6e have 128 MiB.
BUDGET = 80 << 20
LIMIT = 110 << 20
# bfloat16 has 16 lines a tile, float32 has 8; half a tile of bfloat16 is an address still.
_LINES = 16

# So many channels of all taps make one product; its terms are added before they leave the registers.
_DEPTH = 1152

# So many rows are copied without a branch between them, so that one's loads wait for another's stores.
_ROWS_AT_ONCE = 4


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def quotient(index: Any, by: int) -> tuple[Any, Any]:
    """Quotient and rest of what is not negative: for Python's `//` and `%` Mosaic would look at signs."""
    return lax.div(index, by), lax.rem(index, by)


@dataclass(frozen=True)
class Blocks:
    """What one step of the grid computes, and how. Rows are of convolution outputs.

    `hop` rows further down starts the next step; with pooling behind it a step computes more rows than that, the first
    of which is `first` (0, or negative with pooling that pads).
    """

    frames: int
    rows: int
    columns: int
    features: int
    fold: int
    lines: int
    hop: int
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """A convolution cut into blocks, as the kernels are traced for it. All of it is static."""

    geometry: Geometry
    blocks: Blocks
    row_blocks: int | None = None

    @property
    def grid(self) -> tuple[int, int, int, int, int]:
        """Blocks of features, images, columns, frames and rows. The last varies fastest, the kernel stays longest."""
        g, b = self.geometry, self.blocks
        frames, rows, columns = g.out
        return (
            -(-g.features // b.features),
            g.outside,
            -(-columns // b.columns),
            -(-frames // b.frames),
            self.row_blocks or -(-rows // b.hop),
        )

    @property
    def seen(self) -> tuple[int, int, int]:
        """Frames, rows and columns of x that a block's outputs see, padding included."""
        g, b = self.geometry, self.blocks
        d, h, w = (
            (count - 1) * stride + reach
            for count, stride, reach in zip((b.frames, b.rows, b.columns), g.strides, g.reach, strict=True)
        )
        return d, h, w

    @property
    def held(self) -> tuple[int, int, int]:
        """Frames, rows and columns of x that a block holds: what it sees, or all there are."""
        d, h, w = (min(seen, size) for seen, size in zip(self.seen, self.geometry.size, strict=True))
        return d, h, self.geometry.size[2] if self.grid[2] == 1 else w

    @property
    def is_shifted(self) -> bool:
        return self.geometry.inside % 8 != 0 and self.geometry.window[2] > 1

    @property
    def planes(self) -> int:
        return self.geometry.window[2] if self.is_shifted else min(self.geometry.strides[2], self.geometry.reach[2])

    @property
    def group(self) -> int:
        """Rows of outputs in one product, each with its `fold`."""
        b = self.blocks
        units = b.rows // b.fold
        wanted = b.lines / up(b.columns * self.geometry.inside, _LINES)
        # The divisor nearest to what was asked for, and rather too many: 7 rows of 112 lines are one product.
        return min((n for n in range(1, units + 1) if units % n == 0), key=lambda n: max(n / wanted, wanted / n))

    @property
    def line_count(self) -> int:
        """Lines that a scratch row has: outputs in full tiles, and what the last taps reach beyond them."""
        g, b = self.geometry, self.blocks
        last = 0 if self.is_shifted else (g.reach[2] - 1) // g.strides[2] * g.inside
        return up(up(b.columns * g.inside, _LINES) + last, _LINES)

    @property
    def scratch(self) -> tuple[int, int, int, int]:
        return self.planes, self.seen[0] * self.seen[1], self.line_count, self.geometry.channels

    @property
    def scratch_shapes(self) -> list[Any]:
        """For the planes, and, or None, for a row of x in 32 bits: Mosaic loads lines with a stride from such only."""
        g = self.geometry
        has_row = not g.is_inside and g.strides[2] > 1
        row = pltpu.VMEM((self.held[2], g.channels), jnp.float32) if has_row else None
        return [pltpu.VMEM(self.scratch, g.dtype), row]

    @property
    def taps(self) -> list[tuple[int, int, int]]:
        """Offsets of x, in frames, rows and taps of columns, in the order of the kernel's matrix."""
        g = self.geometry
        rows = sorted(
            {f * g.strides[1] + i * g.dilation[1] for f in range(self.blocks.fold) for i in range(g.window[1])}
        )
        frames = [i * g.dilation[0] for i in range(g.window[0])]
        return [(d, h, j) for d in frames for h in rows for j in range(g.window[2])]

    def matrix(self, kernel: jax.Array) -> jax.Array:
        """The kernel `[*window, C, F]` as `[taps * C, fold * F]`."""
        g = self.geometry
        kernel = kernel.reshape(*g.window, g.channels, g.features)
        if self.blocks.fold > 1:
            offsets = [h for d, h, j in self.taps if d == j == 0]
            nothing = jnp.zeros_like(kernel[:, 0])
            folded = []
            for f in range(self.blocks.fold):
                rows = [divmod(offset - f * g.strides[1], g.dilation[1]) for offset in offsets]
                there = [kernel[:, row] if not rest and 0 <= row < g.window[1] else nothing for row, rest in rows]
                folded.append(jnp.stack(there, 1))
            kernel = jnp.stack(folded, -2)
        return kernel.reshape(len(self.taps) * g.channels, -1)

    @property
    def matrix_spec(self) -> pl.BlockSpec:
        shape = (len(self.taps) * self.geometry.channels, self.blocks.fold * self.blocks.features)
        return pl.BlockSpec(shape, lambda f, n, w, d, h: (0, f))

    def start(self, d: Any, h: Any, w: Any) -> tuple[Any, Any, Any]:
        """The first frame, row and column that a block sees, which may be padding."""
        g, b = self.geometry, self.blocks
        return (
            d * (b.frames * g.strides[0]) - g.padding[0][0],
            (h * b.hop + b.first) * g.strides[1] - g.padding[1][0],
            w * (b.columns * g.strides[2]) - g.padding[2][0],
        )

    def held_from(self, d: Any, h: Any, w: Any) -> tuple[Any, Any, Any]:
        """The first frame, row and column of x that a block holds: Mosaic pads no block in front."""
        each = zip(self.start(d, h, w), self.geometry.size, self.held, strict=True)
        d, h, w = (jnp.clip(start, 0, size - held) if held < size else 0 for start, size, held in each)
        return d, h, w

    @property
    def x_spec(self) -> pl.BlockSpec:
        """Blocks that overlap by what their windows share, of x as `Geometry.view` has it."""
        g = self.geometry
        held = tuple(pl.Element(count) for count in self.held)
        channels = pl.Element(g.channels)
        if g.is_inside:
            shape = (*held, pl.Element(g.batch), channels)
            return pl.BlockSpec(shape, lambda f, n, w, d, h: (*self.held_from(d, h, w), 0, 0))
        return pl.BlockSpec((pl.Element(1), *held, channels), lambda f, n, w, d, h: (n, *self.held_from(d, h, w), 0))

    def out_spec(self, frames: int, rows: int, columns: int, features: int | None = None) -> pl.BlockSpec:
        """Blocks of that many frames, rows, columns and features (None: the block's) of an array like the output."""
        features = features or self.blocks.features
        if self.geometry.is_inside:
            shape = (frames, rows, columns, self.geometry.batch, features)
            return pl.BlockSpec(shape, lambda f, n, w, d, h: (d, h, w, 0, f))
        return pl.BlockSpec((1, frames, rows, columns, features), lambda f, n, w, d, h: (n, d, h, w, f))

    def out_shape(self, size: Sequence[int], features: int | None = None) -> tuple[int, ...]:
        g = self.geometry
        features = features or g.features
        return (*size, g.batch, features) if g.is_inside else (g.batch, *size, features)

    @property
    def bytes_of_x(self) -> int:
        g = self.geometry
        lines = up(self.held[2] * g.inside, _LINES)
        return self.held[0] * self.held[1] * lines * up(g.channels, 128) * g.dtype.itemsize

    @property
    def bytes(self) -> int:
        """VMEM for x and the kernel, both twice since the next block comes while this one is computed, and scratch."""
        g, b = self.geometry, self.blocks
        matrix = len(self.taps) * g.channels * up(b.fold * b.features, 128)
        scratch = math.prod(self.scratch[:3]) * up(g.channels, 128)
        return 2 * self.bytes_of_x + (2 * matrix + scratch) * g.dtype.itemsize

    @property
    def out_bytes(self) -> int:
        b = self.blocks
        lines = up(b.columns * self.geometry.inside, _LINES)
        return b.frames * b.rows * lines * up(b.features, 128) * self.geometry.dtype.itemsize


def fill(plan: Plan, x_ref: Any, scratch: Any, wide: Any) -> None:
    """Copies a block into its planes, with zeros where it is padded.

    Args:
      x_ref: the block, as `Plan.x_spec` has it.
      scratch, wide: the first two of `Plan.scratch_shapes`.
    """
    g = plan.geometry
    at = (pl.program_id(3), pl.program_id(4), pl.program_id(2))
    starts, helds = plan.start(*at), plan.held_from(*at)
    frames, rows, _columns = plan.seen
    pieces = _pieces(plan)

    @pl.when(sum(pl.program_id(axis) for axis in range(5)) == 0)
    def _() -> None:
        # No later step touches what no piece fills.
        for plane, low, count in _gaps(plan, pieces):
            scratch[plane, :, pl.ds(low, count)] = jnp.zeros((frames * rows, count, g.channels), scratch.dtype)

    def copy(index: Any) -> None:
        # What is not there is copied from the border, for that needs no branch, and made zero afterwards.
        places = zip(quotient(index, rows), starts, helds, plan.held, strict=False)
        d, h = (jnp.clip(place + start - held, 0, count - 1) for place, start, held, count in places)
        row = x_ref.at[d, h] if g.is_inside else x_ref.at[0, d, h]
        if wide is not None:
            wide[...] = row[...].astype(wide.dtype)
            row = wide
        for plane, source, count, target in pieces:
            if not g.is_inside:
                stride = (g.strides[2],) if g.strides[2] > 1 else ()
                scratch[plane, index, pl.ds(target, count)] = row[pl.ds(source, count, *stride)].astype(x_ref.dtype)
            elif g.strides[2] == 1:
                lines = row[pl.ds(source, count)].reshape(count * g.batch, g.channels)
                scratch[plane, index, pl.ds(target, count * g.batch)] = lines
            else:
                for i in range(count):
                    pixels = row[source + i * g.strides[2]]
                    scratch[plane, index, pl.ds(target + i * g.batch, g.batch)] = pixels

    def copy_some(index: Any, carry: Any) -> Any:
        for i in range(_ROWS_AT_ONCE):
            copy(index * _ROWS_AT_ONCE + i)
        return carry

    lax.fori_loop(0, frames * rows // _ROWS_AT_ONCE, copy_some, 0)
    for index in range(frames * rows // _ROWS_AT_ONCE * _ROWS_AT_ONCE, frames * rows):
        copy(jnp.int32(index))
    if sum(map(sum, g.padding[:2])) == 0:
        return

    def clear_frame(d: Any, carry: Any) -> Any:
        def clear(h: Any, carry: Any) -> Any:
            scratch[:, d * rows + h] = jnp.zeros((plan.planes, *plan.scratch[2:]), scratch.dtype)
            return carry

        is_there = (starts[0] + d >= 0) & (starts[0] + d < g.size[0])
        first = jnp.where(is_there, jnp.clip(-starts[1], 0, rows), rows)
        last = jnp.maximum(first, jnp.clip(g.size[1] - starts[1], 0, rows))
        lax.fori_loop(0, first, clear, 0)
        lax.fori_loop(last, rows, clear, 0)
        return carry

    lax.fori_loop(0, frames, clear_frame, 0)


def _pieces(plan: Plan) -> list[tuple[int, int, int, int]]:
    """Which columns of x go where: plane, first column of the block, how many, first line. Columns are static."""
    g, b = plan.geometry, plan.blocks
    stride, low = g.strides[2], g.padding[2][0]
    pieces = []
    for plane in range(plan.planes):
        offset = plane * g.dilation[2] if plan.is_shifted else plane
        slots = b.columns if plan.is_shifted else plan.line_count // g.inside
        # Slot m of a plane has column m * stride + offset - low of x, where that is one.
        first = max(0, -(-(low - offset) // stride))
        last = min(slots - 1, (plan.held[2] - 1 + low - offset) // stride)
        if last >= first:
            pieces.append((plane, first * stride + offset - low, last - first + 1, first * g.inside))
    return pieces


def _gaps(plan: Plan, pieces: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int]]:
    """Lines of each plane that no piece fills: plane, first line, how many."""
    filled = {plane: (target, target + count * plan.geometry.inside) for plane, _, count, target in pieces}
    gaps = []
    for plane in range(plan.planes):
        low, high = filled.get(plane, (0, 0))
        gaps += [(plane, 0, low), (plane, high, plan.line_count - high)]
    return [gap for gap in gaps if gap[2]]


def windows(plan: Plan, scratch: Any, d: Any, unit: Any, low: int, count: int) -> list[jax.Array]:
    """What each tap of `Plan.taps` sees of `group` rows: lines `[group * count, C]`, from line `low` of a row on.

    Args:
      scratch: as `fill` left it.
      d: the frame in the block.
      unit: the first row in the block, in units of `fold` rows.
      low: the first line, a multiple of 16, and how many lines, `count`, likewise.
    """
    g, b = plan.geometry, plan.blocks
    n = plan.group
    hop = b.fold * g.strides[1]
    pieces = []
    for d_offset, h_offset, j in plan.taps:
        row = (d * g.strides[0] + d_offset) * plan.seen[1] + unit * hop + h_offset
        offset = j * g.dilation[2]
        plane, line = (j, 0) if plan.is_shifted else (offset % g.strides[2], offset // g.strides[2] * g.inside)
        at = pl.ds(line + low, count)
        if hop > 1:
            # Mosaic loads rows with a stride between them for 32 bits a value only.
            rows = jnp.concatenate([scratch[plane, row + i * hop, at] for i in range(n)], 0)
        else:
            rows = scratch[plane, pl.ds(row, n), at].reshape(n * count, g.channels)
        pieces.append(rows)
    return pieces


def products(plan: Plan, scratch: Any, matrix: Any, d: Any, unit: Any, low: int, count: int) -> jax.Array:
    """Outputs of `group` rows, `[group * count, fold * features]` float32: `windows` times `Plan.matrix`."""
    channels = plan.geometry.channels
    pieces = windows(plan, scratch, d, unit, low, count)
    total = None
    step = max(1, _DEPTH // channels)
    for first in range(0, len(pieces), step):
        some = pieces[first : first + step]
        lines = jnp.concatenate(some, 1) if len(some) > 1 else some[0]
        part = matrix[first * channels : (first + len(some)) * channels]
        product = jnp.dot(lines, part, preferred_element_type=jnp.float32)
        total = product if total is None else total + product
    assert total is not None
    return total
