"""Convolutions of one, two or three axes seen as one: of frames, rows and columns, for the TPU kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..dispatch import Refused

type Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Geometry:
    """A convolution as frames, rows and columns: every pair of tuples below is in this order."""

    batch: int
    size: tuple[int, int, int]
    channels: int
    window: tuple[int, int, int]
    features: int
    strides: tuple[int, int, int]
    padding: Pairs
    dilation: tuple[int, int, int]
    is_inside: bool
    dtype: Any

    @property
    def out(self) -> tuple[int, int, int]:
        each = zip(self.size, self.padding, self.reach, self.strides, strict=True)
        d, h, w = ((size + sum(pad) - reach) // stride + 1 for size, pad, reach, stride in each)
        return d, h, w

    @property
    def reach(self) -> tuple[int, int, int]:
        d, h, w = ((window - 1) * dilation + 1 for window, dilation in zip(self.window, self.dilation, strict=True))
        return d, h, w

    @property
    def inside(self) -> int:
        return self.batch if self.is_inside else 1

    @property
    def outside(self) -> int:
        return 1 if self.is_inside else self.batch

    def arrange(self, x: jax.Array) -> jax.Array:
        """`[N, *spatial, C]` with any spatial axes that have as many pixels, as the kernel takes it."""
        x = x.reshape(self.batch, -1, *x.shape[-1:])
        return x.transpose(1, 0, 2) if self.is_inside else x

    def view(self, x: jax.Array, size: Sequence[int]) -> jax.Array:
        x = self.arrange(x)
        shape = (*size, self.batch) if self.is_inside else (self.batch, *size)
        return x.reshape(*shape, x.shape[-1])

    def restore(self, y: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Back to `[N, *spatial, F]` of the given shape."""
        if self.is_inside:
            y = y.reshape(-1, self.batch, y.shape[-1]).transpose(1, 0, 2)
        return y.reshape(shape)


def geometry(
    x: Any,
    window: Sequence[int],
    features: int,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    inside: int | None,
    merge: bool = True,
) -> Geometry:
    """The convolution of x `[N, *spatial, C]`, of one to three spatial axes, as frames, rows and columns.

    With `merge`, all pixels of a frame are columns where the window has time alone.

    Raises:
      Refused: there is nothing to compute.
    """
    n, *size, channels = x.shape
    missing = 3 - len(size)
    # The batch inside the columns costs no shifts, and XLA's convolutions have it there as well.
    is_inside = n % 8 == 0 if inside is None else bool(inside)
    axes: list[Any] = [
        (1,) * missing + tuple(size),
        (1,) * missing + tuple(window),
        (1,) * missing + tuple(strides),
        ((0, 0),) * missing + tuple(padding),
        (1,) * missing + tuple(dilation),
    ]
    d: Any
    h: Any
    w: Any
    d, h, w = zip(*axes, strict=True)
    if merge and _is_free(h) and _is_free(w) and not _is_free(d):
        d, h, w = (1, 1, 1, (0, 0), 1), d, (h[0] * w[0], 1, 1, (0, 0), 1)
    sizes, *others = (tuple(each) for each in zip(d, h, w, strict=True))
    reaches, steps, pads, rates = others
    it = Geometry(n, sizes, channels, reaches, features, steps, pads, rates, is_inside, jnp.dtype(x.dtype))
    if min(n, *sizes, channels, features, *it.out) < 1:
        raise Refused(f"there is nothing to compute for x {tuple(x.shape)} and a window of {tuple(window)}")
    return it


def _is_free(axis: tuple[Any, ...]) -> bool:
    return axis[1] == 1 and axis[2] == 1 and axis[3] == (0, 0)
