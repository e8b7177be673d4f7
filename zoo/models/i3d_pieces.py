"""I3D's layers on a piece of a clip: they know what came before it, and must guess what comes behind."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo import kernels
from zoo.models.inception import Inception, Unit
from zoo.models.layers import max_pool

type Before = tuple[jax.Array, ...]
"""For each layer that is wider than a step, the last steps of its input `[B, steps, H, W, C]` before a piece."""


class Piece:
    """One pass over a piece of a clip `[B, T, H, W, C]`, layer by layer; each T is a multiple of the strides in time.

    Args:
      before: what the pass over the piece before left in `after`; None at the start of a clip, where I3D sees zeros.
      ends: whether the clip ends with this piece, so that layers see zeros behind it, as I3D does; if not, they see its
        last step over and over. A bool, or a traced one.
      provisional: last steps of the piece that the next piece begins with once more.
      is_there: bool `[B, T]`, False for steps before the start of the clip.

    Attributes:
      after: what the pass over the next piece takes as `before`.
    """

    def __init__(
        self,
        before: Before | None,
        *,
        ends: bool | jax.Array,
        provisional: int = 0,
        is_there: jax.Array | None = None,
    ):
        self._before: Iterator[jax.Array] | None = None if before is None else iter(before)
        self._ends, self._provisional, self._is_there = ends, provisional, is_there
        self._after: list[jax.Array] = []

    @property
    def after(self) -> Before:
        return tuple(self._after)

    def unit(self, unit: Unit, x: jax.Array) -> jax.Array:
        """As `unit(x)` in the middle of a clip."""
        kernel = unit.conv.kernel[...].astype(x.dtype)
        strides = unit.conv.strides if isinstance(unit.conv.strides, int) else unit.conv.strides[0]
        x, in_space = self._wider(x, kernel.shape[:3], (strides,) * 3)
        y = kernels.conv(x, kernel, strides=strides, padding=((0, 0), *in_space))
        return nnx.relu(unit.norm(y)).astype(x.dtype)

    def pool(self, x: jax.Array, window: Sequence[int], strides: Sequence[int]) -> jax.Array:
        """As `max_pool(x, window=window, strides=strides, padding="SAME")`; x is nowhere below zero."""
        x, in_space = self._wider(x, window, strides)
        return max_pool(x, window=window, strides=strides, padding=((0, 0), *in_space))

    def block(self, block: Inception, x: jax.Array) -> jax.Array:
        """As `block(x)` in the middle of a clip."""
        branches = (
            block.branch_0(x),
            self.unit(block.branch_1b, block.branch_1a(x)),
            self.unit(block.branch_2b, block.branch_2a(x)),
            block.branch_3(self.pool(x, (3, 3, 3), (1, 1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)

    def _wider(self, x: jax.Array, window: Sequence[int], strides: Sequence[int]) -> tuple[jax.Array, Any]:
        """x with the steps before and behind that a window reaches, and the padding in space."""
        (left, right), *in_space = (
            _same(size, *both) for size, *both in zip(x.shape[1:4], window, strides, strict=True)
        )
        if self._is_there is not None:
            x = jnp.where(self._is_there[..., None, None, None], x, 0)
        before = jnp.zeros_like(x[:, :1]) if self._before is None else next(self._before)
        if self._before is None:
            before = jnp.repeat(before, left, axis=1)
        end = x.shape[1] - self._provisional
        self._after.append(x[:, end - left : end])
        behind = jnp.where(self._ends, 0, jnp.repeat(x[:, -1:], right, axis=1))
        return jnp.concatenate([before, x, behind], axis=1), in_space


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    """What "SAME" pads before and behind."""
    total = max(0, (-(-size // stride) - 1) * stride + window - size)
    return total // 2, total - total // 2
