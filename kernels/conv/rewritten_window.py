"""A window that slides over padded arrays, what each of its taps sees, and axes along which it has but one tap."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

type Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """Taps, strides and dilation, a number for each spatial axis."""

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Pixels from the first tap to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.taps, self.dilation, strict=True))

    def outputs(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Places of the window on padded axes of these sizes."""
        return tuple((n - r) // s + 1 for n, r, s in zip(sizes, self.reach, self.strides, strict=True))

    def spans(self, outputs: Sequence[int]) -> tuple[int, ...]:
        """Pixels that so many places see, from the first to the last."""
        return tuple((o - 1) * s + r for o, s, r in zip(outputs, self.strides, self.reach, strict=True))

    def places(self) -> list[tuple[int, ...]]:
        """Every tap, in row-major order."""
        return list(itertools.product(*map(range, self.taps)))

    def seen(self, x: jax.Array, tap: Sequence[int], outputs: Sequence[int]) -> jax.Array:
        """What a tap sees of the padded x `[N, *padded, C]`: `[N, *outputs, C]`."""
        first = [t * d for t, d in zip(tap, self.dilation, strict=True)]
        last = [f + (o - 1) * s + 1 for f, o, s in zip(first, outputs, self.strides, strict=True)]
        return lax.slice(x, (0, *first, 0), (x.shape[0], *last, x.shape[-1]), (1, *self.strides, 1))


def padded(x: jax.Array, padding: Pairs, between: Sequence[int] | None = None) -> jax.Array:
    """x `[N, *spatial, C]` with zeros around it, cut where padding is negative, and zeros between its values."""
    between = (0,) * len(padding) if between is None else between
    if not any(map(any, padding)) and not any(between):
        return x
    each = [(low, high, zeros) for (low, high), zeros in zip(padding, between, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *each, (0, 0, 0)])


@dataclass(frozen=True)
class Folded:
    """A convolution without the axes along which its window has one tap.

    Those before all others become batch, those side by side become one: a 1x3x3 window is one of 3x3 on frames, and a
    3x1x1 window one of 3x1 on time and pixels.
    """

    window: Window
    padding: Pairs
    _lone: tuple[tuple[tuple[int, int], int], ...]  # each axis's padding and stride if it has one tap
    _groups: tuple[tuple[int, ...], ...]  # axes that become one, for each that remains
    _batch: int  # axes that become batch

    def x(self, x: jax.Array) -> jax.Array:
        """`[N, *spatial, C]` as the folded convolution takes it; what its strides skip along lone taps is left out."""
        x = padded(x, [pads for pads, _ in self._lone])
        x = lax.slice(x, (0,) * x.ndim, x.shape, (1, *(stride for _, stride in self._lone), 1))
        return self.outputs(x)

    def outputs(self, y: jax.Array) -> jax.Array:
        """An array of outputs `[N, *spatial', F]`, folded."""
        sizes = [math.prod(y.shape[1 + axis] for axis in group) for group in self._groups]
        return y.reshape(math.prod(y.shape[: 1 + self._batch]), *sizes, y.shape[-1])


def fold(window: Window, padding: Pairs) -> Folded:
    """The axes with one tap taken away; at least one axis remains."""
    alone = [k == 1 for k in window.taps]
    none = ((0, 0), 1)
    lone = tuple(
        (pads, stride) if one else none for one, pads, stride in zip(alone, padding, window.strides, strict=True)
    )
    batch = next((axis for axis, one in enumerate(alone) if not one), len(alone) - 1)
    groups: list[tuple[int, ...]] = []
    for axis in range(batch, len(alone)):
        if groups and alone[axis] and alone[axis - 1]:
            groups[-1] = (*groups[-1], axis)
        else:
            groups.append((axis,))
    first = [group[0] for group in groups]
    kept = Window(
        tuple(window.taps[axis] for axis in first),
        tuple(1 if alone[axis] else window.strides[axis] for axis in first),
        tuple(1 if alone[axis] else window.dilation[axis] for axis in first),
    )
    pads = tuple((0, 0) if alone[axis] else padding[axis] for axis in first)
    return Folded(kept, pads, lone, tuple(groups), batch)
