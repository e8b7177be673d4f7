"""Shifted views of a padded array: one for every tap of a window."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..dispatch import Refused

type Pairs = Sequence[tuple[int, int]]

# One multiply-add is written out for every tap; more of them take longer to compile than they save.
_MOST_TAPS = 125


def check(window: Sequence[int]) -> None:
    """Raises Refused for a window of more than 125 taps."""
    if math.prod(window) > _MOST_TAPS:
        raise Refused(f"shifted multiply-adds are written out for at most {_MOST_TAPS} taps, not a window {window}")


def taps(window: Sequence[int]) -> list[tuple[int, ...]]:
    """Every place in the window, in row-major order."""
    return list(itertools.product(*(range(size) for size in window)))


def shifted(x: jax.Array, tap: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """What a tap sees of the padded x `[N, *padded, C]`, for every one of `sizes` outputs."""
    last = [first + (size - 1) * stride + 1 for first, size, stride in zip(tap, sizes, strides, strict=True)]
    return lax.slice(x, (0, *tap, 0), (x.shape[0], *last, x.shape[-1]), (1, *strides, 1))


def padded(x: jax.Array, padding: Pairs, between: Sequence[int] | None = None) -> jax.Array:
    """x `[N, *spatial, C]` with zeros around it, and `between` of them between its values."""
    between = (0,) * len(padding) if between is None else between
    each = [(low, high, zeros) for (low, high), zeros in zip(padding, between, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *each, (0, 0, 0)])
