"""The packed layout of the ConvLSTM kernels.

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


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def lane_features(features: int) -> int:
    """Lanes for one gate: 64, so that two fill a register, or whole registers."""
    return LANES // 2 if features <= LANES // 2 else round_up(features, LANES)


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

    def pack_state(self, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Two arrays `[B, H, W, C]`, each to `[H, columns, groups * sublanes, C]`."""
        h, c = (self.pack(s[:, None])[0] for s in state)
        return h, c

    def unpack_state(self, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The inverse of `pack_state`."""
        h, c = (self.unpack(s[None])[:, 0] for s in state)
        return h, c


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
