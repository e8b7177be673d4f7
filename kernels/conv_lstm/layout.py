"""How a ConvLSTM's arrays lie in a TPU's memory, and how large they are there.

A TPU register holds 8 sublanes of 128 lanes, of 32 bits each; bfloat16 puts two rows into a sublane. Channels lie in
the lanes. A 3x3 window wants neighbours along the width, which the usual layout keeps in sublanes, so that every tap
costs a rotation of every register. The packed layout `[T, H, W / split, batch * split, C]` cuts the width into `split`
parts and keeps the parts, with the batch, in the sublanes: the neighbour is then a whole register away, at no cost, and
only the columns where two parts meet have to be exchanged. The row of image b and part k is `b * split + k`.

All shapes below are for one *group* of images, as many as fill the sublanes of one register: group * split = sublanes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128

# The public order is input, forget, cell, output. Within the kernels it is forget, input, output, cell: with two gates
# in a register, the product of both registers then holds input * cell. This reordering is its own inverse.
GATES = np.array([1, 0, 3, 2])

# v5e, v5p and v6e have 128 MiB of VMEM to a core; the compiler wants some of it for its own.
VMEM_LIMIT = 120 << 20

# Rows of one matrix product: enough to hide the loading of weights, and few enough for the compiler to schedule in
# seconds. 1024 and 2048 differ by 3% on v6e.
PRODUCT_ROWS = 1024


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def lane_features(features: int) -> int:
    """Lanes for one gate: 64, so that two fill a register, or whole registers."""
    return LANES // 2 if features <= LANES // 2 else _round_up(features, LANES)


@dataclass(frozen=True)
class Packing:
    """Image b, column w of a batch: part w // columns, sublane (b % group) * split + part of group b // group."""

    batch: int
    width: int
    group: int
    split: int

    @property
    def groups(self) -> int:
        return -(-self.batch // self.group)

    @property
    def sublanes(self) -> int:
        return self.group * self.split

    @property
    def columns(self) -> int:
        return self.width // self.split

    def pack(self, x: jax.Array) -> jax.Array:
        """`[B, T, H, W, C]` to `[T, H, columns, groups * sublanes, C]`; images that fill up the last group are zero."""
        batch, steps, height, _, channels = x.shape
        x = jnp.pad(x, [(0, self.groups * self.group - batch)] + [(0, 0)] * 4)
        x = x.reshape(-1, steps, height, self.split, self.columns, channels).transpose(1, 2, 4, 0, 3, 5)
        return x.reshape(steps, height, self.columns, self.groups * self.sublanes, channels)

    def unpack(self, x: jax.Array) -> jax.Array:
        """The inverse of `pack`."""
        steps, height, columns, _, channels = x.shape
        x = x.reshape(steps, height, columns, -1, self.split, channels).transpose(3, 0, 1, 4, 2, 5)
        return x.reshape(-1, steps, height, self.width, channels)[: self.batch]


def packings(batch: int, width: int, window_width: int, dtype: jnp.dtype) -> Iterator[Packing]:
    """Every way to fill a register's sublanes, those that fill them with the fewest zeros and largest groups first."""
    sublanes = 32 // dtype.itemsize
    splits = [split for split in (1, 2, 4, 8, 16) if split <= sublanes and width % split == 0]
    # A part as wide as the window reaches has all that its neighbours need.
    splits = [split for split in splits if split == 1 or width // split >= window_width // 2]
    every = [Packing(batch, width, sublanes // split, split) for split in splits]
    # Pairs of bfloat16 share a sublane. Two halves of one image in it are cheaper to form than two images.
    first = 4 // dtype.itemsize
    yield from sorted(every, key=lambda p: (p.groups * p.group, p.split < first, p.split))


@dataclass(frozen=True)
class Plan:
    """One layer's sizes: what is computed in a step of the grid, and what that needs of VMEM.

    rows: image rows of one matrix product. The grid walks over blocks of so many rows, frame after frame.
    """

    packing: Packing
    steps: int
    height: int
    channels: int
    features: int
    window: tuple[int, int]
    rows: int
    dtype: jnp.dtype

    @property
    def taps(self) -> int:
        return self.window[0] * self.window[1]

    @property
    def before(self) -> tuple[int, int]:
        """Zeros that SAME puts before the first row and column."""
        return (self.window[0] - 1) // 2, (self.window[1] - 1) // 2

    @property
    def after(self) -> tuple[int, int]:
        return self.window[0] // 2, self.window[1] // 2

    @property
    def reach(self) -> int:
        """Blocks above and below that a block's window reaches into."""
        return -(-self.after[0] // self.rows)

    @property
    def blocks(self) -> int:
        """Blocks of rows in a frame."""
        return self.height // self.rows

    @property
    def products_lag(self) -> int:
        """Steps after which a block's input, and that of the blocks its window reaches into, is in place."""
        return 1 + self.reach

    @property
    def gates_lag(self) -> int:
        return self.products_lag + 1

    @property
    def frame_blocks(self) -> int:
        """Steps that a frame takes. Its first product needs blocks that the frame before made so many steps earlier."""
        return max(self.blocks, self.gates_lag)

    @property
    def gate(self) -> int:
        return lane_features(self.features)

    @property
    def lanes(self) -> int:
        """Lanes of hidden state and input side by side."""
        return _round_up(self.gate + self.channels, LANES)

    @property
    def area(self) -> int:
        """Rows of one block's matrix product."""
        return self.rows * self.packing.columns * self.packing.sublanes

    @property
    def halo_shape(self) -> tuple[int, int, int]:
        return (
            self.height + self.window[0] - 1,
            self.packing.columns + self.window[1] - 1,
            self.packing.sublanes,
        )

    @property
    def precision(self) -> jax.lax.Precision:
        """Float32 in full; bfloat16 needs no more than one pass."""
        return jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else jax.lax.Precision.DEFAULT

    def bytes(self, positions: int, lanes: int, dtype: jnp.dtype | type) -> int:
        return positions * _round_up(lanes, LANES) * jnp.dtype(dtype).itemsize

    @property
    def halo_positions(self) -> int:
        height, columns, sublanes = self.halo_shape
        return height * columns * sublanes

    @property
    def positions(self) -> int:
        """Positions of a frame."""
        return self.blocks * self.area

    def arrange_kernel(self, kernel: jax.Array) -> jax.Array:
        """`[kh, kw, C + F, 4F]` to `[taps, lanes, 4 gate]`: rows hidden state then input, gates f, i, o, g.

        The sigmoid gates' weights are halved, since sigmoid(v) = tanh(v / 2) / 2 + 1 / 2 and one tanh then serves all.
        """
        h, w = self.window
        kernel = kernel.reshape(h * w, self.channels + self.features, 4, self.features)
        padded = [(0, 0), (0, 0), (0, 0), (0, self.gate - self.features)]
        x, hidden = (jnp.pad(part, padded) for part in (kernel[:, : self.channels], kernel[:, self.channels :]))
        hidden = jnp.pad(hidden, [(0, 0), (0, self.gate - self.features), (0, 0), (0, 0)])
        x = jnp.pad(x, [(0, 0), (0, self.lanes - self.gate - self.channels), (0, 0), (0, 0)])
        return jnp.concatenate([hidden, x], axis=1)[:, :, GATES].reshape(h * w, self.lanes, 4 * self.gate)

    def arrange_bias(self, bias: jax.Array) -> jax.Array:
        """`[4F]` to float32 `[1, 4 gate]`."""
        bias = jnp.pad(bias.astype(jnp.float32).reshape(4, -1), [(0, 0), (0, self.gate - self.features)])
        return bias[GATES, :].reshape(1, 4 * self.gate)

    def halve_sigmoids(self, values: jax.Array) -> jax.Array:
        """Values of arranged gates, those of f, i and o halved: exact in any binary floating point."""
        return values * jnp.repeat(jnp.array([0.5, 0.5, 0.5, 1.0], values.dtype), self.gate)

    def restore_kernel(self, arranged: jax.Array) -> jax.Array:
        """The inverse of `arrange_kernel`."""
        h, w = self.window
        arranged = arranged.reshape(h, w, self.lanes, 4, self.gate)[..., GATES, : self.features]
        hidden, x = arranged[:, :, : self.features], arranged[:, :, self.gate : self.gate + self.channels]
        return jnp.concatenate([x, hidden], axis=2).reshape(h, w, self.channels + self.features, 4 * self.features)

    def restore_bias(self, arranged: jax.Array) -> jax.Array:
        """The inverse of `arrange_bias`."""
        return arranged.reshape(4, self.gate)[GATES, : self.features].reshape(-1)
