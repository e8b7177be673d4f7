"""The order in which a ConvLSTM kernel's grid visits the blocks of rows, and the blocks of arrays that go with it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .plan import Plan


@dataclass(frozen=True)
class Walk:
    """Grid `(groups, steps + lag)`: frame after frame, block after block, several pieces of work at once.

    What a piece of work needs of another is ready some steps later, so it is on the block of `lag` steps before. Steps
    before the walk's begin and after its end are spent on its first and last block again.

    frame_blocks: steps for a frame, at least its number of blocks.
    backwards: last frame first.
    """

    plan: Plan
    frame_blocks: int
    backwards: bool

    @property
    def steps(self) -> int:
        return self.plan.steps * self.frame_blocks

    def at(self, step: jax.Array, lag: int) -> tuple[jax.Array, jax.Array]:
        """How many frames came before, and the block, which a short frame may not have."""
        # Not `//` and `%`, which Mosaic lowers on a known chip only; nothing is negative here.
        index = jnp.clip(step - lag, 0, self.steps - 1)
        return jax.lax.div(index, self.frame_blocks), jax.lax.rem(index, self.frame_blocks)

    def _frame_and_block(self, step: jax.Array, lag: int) -> tuple[jax.Array, jax.Array]:
        frame, block = self.at(step, lag)
        return self.plan.steps - 1 - frame if self.backwards else frame, jnp.minimum(block, self.plan.blocks - 1)

    def packed(self, channels: int, lag: int, earlier: int = 0) -> pl.BlockSpec:
        """Of an array `[T, H, columns, groups * sublanes, channels]`; `earlier` frames before the one worked on."""
        packing = self.plan.packing

        def index(group, step):
            frame, block = self._frame_and_block(step, lag)
            return jnp.maximum(frame - earlier, 0), block, 0, group, 0

        return pl.BlockSpec((None, self.plan.rows, packing.columns, packing.sublanes, channels), index)

    def usual(self, channels: int, lag: int) -> pl.BlockSpec:
        """Of an array `[B, T, H, W, channels]`."""

        def index(group, step):
            return group, *self._frame_and_block(step, lag), 0, 0

        return pl.BlockSpec((8, None, self.plan.rows, self.plan.packing.width, channels), index)

    def state(self, channels: int, lag: int, after: int, usual: bool = False) -> pl.BlockSpec:
        """Of an array `[H, columns, groups * sublanes, channels]`, gone through in frame number `after` of the walk.

        usual: of an array `[B, H, W, channels]` instead.
        """
        packing = self.plan.packing

        def index(group, step):
            block = jnp.clip(step - lag - after * self.frame_blocks, 0, self.plan.blocks - 1)
            return (group, block, 0, 0) if usual else (block, 0, group, 0)

        if usual:
            return pl.BlockSpec((8, self.plan.rows, packing.width, channels), index)
        return pl.BlockSpec((self.plan.rows, packing.columns, packing.sublanes, channels), index)
