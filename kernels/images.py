"""An image at a time, and an axis put together from its phases: what rewritten operations for CPUs have in common."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax


def image_by_image(function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    """`function` of arrays `[1, ...]`, for every image of `[N, ...]` in turn: what lies between stays in cache."""
    if operands[0].shape[0] == 1:
        return function(*operands)
    return lax.map(lambda one: function(*(a[None] for a in one))[0], operands)


def interleaved(phases: Sequence[jax.Array], axis: int) -> jax.Array:
    """Arrays of one shape, taken in turn along an axis: with `s` of them, number `r` holds every s-th place from r."""
    if len(phases) == 1:
        return phases[0]
    # Fused with what computes the phases, the choice between them is made anew for every value.
    out = jnp.stack(lax.optimization_barrier(tuple(phases)), axis + 1)
    shape = phases[0].shape
    return out.reshape(*shape[:axis], shape[axis] * len(phases), *shape[axis + 1 :])
