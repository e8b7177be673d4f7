"""What every public function does with its arguments: check them, write them out an axis each, fold the batch."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

type Padding = str | Sequence[tuple[int, int]]
type Pairs = tuple[tuple[int, int], ...]


def per_axis(value: int | Sequence[int], axes: int, what: str) -> tuple[int, ...]:
    """One positive number for each spatial axis."""
    values = (value,) * axes if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != axes:
        raise ValueError(f"{what}={value} has {len(values)} numbers for {axes} spatial axes")
    if min(values) < 1:
        raise ValueError(f"{what}={value} should be 1 or more on every axis")
    return values


def check_input(x: jax.Array, axes: int, operation: str) -> None:
    """That x has as many spatial axes as the kernel or window says, and channels behind them."""
    if axes not in (1, 2, 3):
        raise ValueError(f"{operation} works on 1, 2 or 3 spatial axes, not {axes}")
    if x.ndim < axes + 1:
        raise ValueError(f"{operation} over {axes} spatial axes needs channels behind them; x has shape {x.shape}")


def check_floating(operation: str, **arrays: jax.Array) -> None:
    """That all arrays are of one floating dtype."""
    dtypes = {name: array.dtype for name, array in arrays.items()}
    if len(set(dtypes.values())) > 1 or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes.values()):
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise ValueError(f"{operation} wants one floating dtype; it has {listed}")


def pairs(
    padding: Padding, spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """Padding as (low, high) on each axis.

    Raises:
      ValueError: an unknown name, another number of pairs than axes, or a window larger than what it slides over.
    """
    reach = [(size - 1) * step + 1 for size, step in zip(window, dilation, strict=True)]
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f'padding {padding!r} is neither "SAME" nor "VALID" nor a pair for each axis')
        each = tuple((int(low), int(high)) for low, high in lax.padtype_to_pads(spatial, reach, strides, padding))
    else:
        each = tuple((int(low), int(high)) for low, high in padding)
    if len(each) != len(window):
        raise ValueError(f"padding={padding} has {len(each)} pairs for {len(window)} spatial axes")
    for size, (low, high), needed in zip(spatial, each, reach, strict=True):
        if size + low + high < needed:
            reaching = f"a window of {tuple(window)} with dilation {tuple(dilation)}"
            raise ValueError(f"{reaching} does not fit into {tuple(spatial)} with padding {each}")
    return each


def over_folded_batch(function: Callable[..., jax.Array], x: jax.Array, axes: int, *others: jax.Array) -> jax.Array:
    """`function` with all axes before the spatial ones folded into one, and unfolded in its result."""
    batch = x.shape[: x.ndim - axes - 1]
    fold = [a.reshape(math.prod(batch), *a.shape[len(batch) :]) for a in (x, *others)]
    out = function(*fold)
    return out.reshape(*batch, *out.shape[1:])
