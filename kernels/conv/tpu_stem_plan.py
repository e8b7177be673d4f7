"""How a stem is cut up for `tpu_stem`: the shapes of its blocks, and the constant matrices that rearrange pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..dispatch import Refused

LANES = 128
# Rows of an image that are rearranged at a time: a tile of bfloat16 has 16.
CHUNK = 16
# Loading a tile of the matrix unit costs about as much as streaming so many rows through it (fitted to the schedules
# of products of 64, 128 and 256 rows on v5e).
_ROWS_PER_LOAD = 56
_MOST_PRODUCT_ROWS = 512
MOST_CHANNELS = 4
# Half of the 128 MiB of a v5e or v6e.
_MOST_BYTES = 64 << 20

type Three = tuple[int, int, int]


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class Band(NamedTuple):
    """Lines from `start` to `stop` of a slab, and the rows of the result that see any of them."""

    start: int
    stop: int
    first_row: int
    last_row: int


@dataclass(frozen=True)
class Plan:
    """A stem on x `[N, T, H, W, C]` with a kernel `[kt, kh, kw, C, F]`, dilated already. The rest follows."""

    shape: tuple[int, int, int, int, int]
    window: Three
    strides: Three
    padding: tuple[tuple[int, int], ...]
    features: int
    itemsize: int

    @cached_property
    def result(self) -> Three:
        """Frames, rows and columns of the result."""
        each = zip(self.shape[1:4], self.window, self.strides, self.padding, strict=True)
        frames, rows, columns = ((size + low + high - k) // s + 1 for size, k, s, (low, high) in each)
        return frames, rows, columns

    @property
    def phases(self) -> int:
        """Columns of one step along the row that the window sees: pixel q * stride + phase."""
        return min(self.strides[2], self.window[2])

    @property
    def shifts(self) -> int:
        """Steps along the row that the window sees."""
        return (self.window[2] - 1) // self.strides[2] + 1

    @cached_property
    def images(self) -> int:
        """Images side by side in the lanes."""
        images = 1
        while images * 2 <= min(self.shape[0], LANES // CHUNK):
            if self.result[2] + self.shifts - 1 > LANES // (images * 2):
                break
            images *= 2
        return images

    @property
    def segment(self) -> int:
        """Lanes of one image."""
        return LANES // self.images

    @cached_property
    def tile_columns(self) -> int:
        """Columns of the result that one tile of lanes gives."""
        most = (self.segment + 1 - self.shifts) // 8 * 8
        if self.result[2] <= self.segment + 1 - self.shifts:
            return self.result[2]
        return _up(-(-self.result[2] // -(-self.result[2] // most)), 8)

    @property
    def tiles(self) -> int:
        """Tiles of lanes that a row of the result takes."""
        return -(-self.result[2] // self.tile_columns)

    @property
    def padded_features(self) -> int:
        return _up(self.features, CHUNK)

    @cached_property
    def _products(self) -> tuple[int, int, tuple[Band, ...]]:
        """Lines of one image row in the rearranged frame, rows of the result computed together, and how."""
        lines = self.phases * self.shape[-1]
        best = None
        for padded in sorted({lines, *(_up(lines, m) for m in (2, 4, 8, 16))}):
            for rows in range(1, 17):
                if rows * self.strides[1] * padded % CHUNK or rows * self.padded_features > _MOST_PRODUCT_ROWS:
                    continue
                cost, bands = self._cut_into_bands(padded, rows)
                cost *= -(-self.result[1] // rows)
                if best is None or cost < best[0]:
                    best = cost, (padded, rows, bands)
        if best is None:
            raise Refused(f"the stem kernel takes up to {_MOST_PRODUCT_ROWS} features, not {self.features}")
        return best[1]

    def _cut_into_bands(self, lines: int, rows: int) -> tuple[int, tuple[Band, ...]]:
        """The cheapest way to multiply a slab, some of whose lines only some rows see; and its cost."""
        seen = [
            (row * self.strides[1] * lines, (row * self.strides[1] + self.window[1]) * lines) for row in range(rows)
        ]
        best: list[tuple[int, tuple[Band, ...]]] = [(0, ())]
        for stop in range(CHUNK, self._slab(lines, rows) + 1, CHUNK):
            choices = []
            for start in range(0, stop, CHUNK):
                which = [row for row, (first, last) in enumerate(seen) if first < stop and last > start]
                cost, before = best[start // CHUNK]
                if not which:
                    choices.append((cost, before))
                    continue
                band = Band(start, stop, which[0], which[-1] + 1)
                loads = -(-self.pieces * (stop - start) // LANES)
                products = (band.last_row - band.first_row) * self.padded_features
                choices.append((cost + loads * (products + _ROWS_PER_LOAD), (*before, band)))
            best.append(min(choices, key=lambda choice: choice[0]))
        return best[-1]

    @property
    def pieces(self) -> int:
        """Frames and shifts of which a product has a slab each."""
        return self.window[0] * self.shifts

    def _slab(self, lines: int, outputs: int) -> int:
        return _up(((outputs - 1) * self.strides[1] + self.window[1]) * lines, CHUNK)

    @property
    def lines(self) -> int:
        return self._products[0]

    @property
    def rows(self) -> int:
        """Rows of the result that share a product."""
        return self._products[1]

    @property
    def bands(self) -> tuple[Band, ...]:
        return self._products[2]

    @property
    def groups(self) -> int:
        return -(-self.result[1] // self.rows)

    @property
    def step(self) -> int:
        """Lines of the rearranged frame from one product to the next, and (`slab`) those of one product."""
        return self.rows * self.strides[1] * self.lines

    @property
    def slab(self) -> int:
        return self._slab(self.lines, self.rows)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Where each band's summands begin among the weights' columns, and where they all end."""
        ends = np.cumsum([0, *(_up(self.pieces * (band.stop - band.start), LANES) for band in self.bands)])
        return tuple(map(int, ends))

    @property
    def chunks(self) -> int:
        """Chunks of the rearranged frame."""
        return -(-((self.groups - 1) * self.step + self.slab) // (CHUNK * self.lines))

    @property
    def image_chunks(self) -> int:
        return -(-self.shape[2] // CHUNK)

    @property
    def empty_chunks(self) -> int:
        """Chunks of padding above the image."""
        return -(-self.padding[1][0] // CHUNK)

    @property
    def frames(self) -> int:
        """Frames, padding included, that are visited for a clip."""
        return (self.result[0] - 1) * self.strides[0] + self.window[0]

    @property
    def bytes(self) -> int:
        """What the kernel keeps in VMEM."""
        channels, height, width = self.shape[-1], self.image_chunks * CHUNK, self.shape[3]
        x = self.images * channels * height * _up(width, LANES)
        out = self.images * self.groups * self.rows * _up(self.result[2], 8) * _up(self.features, LANES)
        apart = self.tiles * (self.chunks + 1) * self.phases * channels * CHUNK * LANES
        frames = self.window[0] * self.shifts * self.tiles * self.chunks * CHUNK * self.lines * LANES
        constants = self.columns.size + self.order.size + self.rows * self.padded_features * self.depths[-1]
        return self.itemsize * (2 * (x + out + constants) + apart + frames)

    @property
    def is_smaller_by_columns(self) -> bool:
        """Whether the result is padded less in memory with its columns as the minor axis than with its features."""
        columns, features = self.result[2], self.features
        return _up(features, 8) * _up(columns, LANES) < _up(columns, 8) * _up(features, LANES)

    @cached_property
    def columns(self) -> np.ndarray:
        """`[images, W, tiles * phases * 128]`: 1 where a column of an image is the lane's, for tile and phase."""
        width, stride, low = self.shape[3], self.strides[2], self.padding[2][0]
        chosen = np.zeros((self.images, width, self.tiles, self.phases, LANES), np.float32)
        for tile in range(self.tiles):
            for phase in range(self.phases):
                for lane in range(LANES):
                    column = (tile * self.tile_columns + lane % self.segment) * stride + phase - low
                    if 0 <= column < width:
                        chosen[lane // self.segment, column, tile, phase, lane] = 1
        return chosen.reshape(self.images, width, -1)

    @cached_property
    def order(self) -> np.ndarray:
        """`[lines of a chunk, lines of two chunks apart]`: from (phase, channel, row) to (row, phase, channel)."""
        shift = self.empty_chunks * CHUNK - self.padding[1][0]
        sorts = self.phases * self.shape[-1]
        chosen = np.zeros((CHUNK, self.lines, 2, sorts, CHUNK), np.float32)
        for row in range(CHUNK):
            for sort in range(sorts):
                chosen[row, sort, (row + shift) // CHUNK, sort, (row + shift) % CHUNK] = 1
        return chosen.reshape(CHUNK * self.lines, -1)

    def weights(self, kernel: jax.Array) -> jax.Array:
        """kernel `[kt, kh, kw, C, F]` to `[rows * features, depths]`: a copy for each row of the result, shifted."""
        frames, height, _, channels, features = kernel.shape
        kernel = _pad_to(kernel, 2, self.shifts * self.phases)
        kernel = kernel.reshape(frames, height, self.shifts, self.phases * channels, features)
        kernel = _pad_to(_pad_to(kernel, 3, self.lines), 4, self.padded_features)
        kernel = kernel.transpose(4, 0, 2, 1, 3).reshape(self.padded_features, self.pieces, height * self.lines)
        copies = [_pad_to(kernel, 2, self.slab, row * self.strides[1] * self.lines) for row in range(self.rows)]
        slabs = jnp.stack(copies).reshape(-1, self.pieces, self.slab)
        ends = zip(self.bands, self.depths, self.depths[1:], strict=False)
        return jnp.concatenate(
            [
                _pad_to(slabs[:, :, band.start : band.stop].reshape(slabs.shape[0], -1), 1, end - begin)
                for band, begin, end in ends
            ],
            axis=1,
        )


def _pad_to(x: jax.Array, axis: int, size: int, low: int = 0) -> jax.Array:
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, size - low - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


@cache
def plan(shape, window: Three, strides: Three, padding, features: int, itemsize: int) -> Plan:
    """The plan for such a stem.

    Raises:
      Refused: too many channels, a window too wide, an empty result, or more than fits the chip.
    """
    made = Plan(shape, window, strides, padding, features, itemsize)
    if shape[-1] > MOST_CHANNELS:
        raise Refused(f"the stem kernel takes up to {MOST_CHANNELS} channels, not {shape[-1]}")
    if min(made.result) < 1:
        raise Refused(f"the stem kernel needs a result, not {made.result}")
    if made.shifts > LANES // 2:
        raise Refused(f"the stem kernel takes windows up to {LANES // 2} strides wide, not {window}")
    if made.bytes > _MOST_BYTES:
        raise Refused(f"the stem kernel would keep {made.bytes >> 20} MiB on the chip for x {shape}, window {window}")
    return made


def three(values: Sequence, filler) -> tuple:
    """Options of a 2D convolution as those of a 3D one on single frames."""
    return (filler, *values) if len(values) == 2 else tuple(values)
