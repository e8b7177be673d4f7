"""Random draws for a part of a batch that are those of the whole batch.

Where each device runs a program of its own on its rows, `jax.random.normal(key, x.shape)` would draw the same noise on
every device, and other noise than one device draws for the whole batch. With a key from `part_of` it draws the device's
rows of what one device would have drawn. Whatever is not a scalar counts as drawn for examples, along the first axis.
"""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl, threefry_prng_impl


def part_of(key: jax.Array, part: jax.Array, parts: int) -> jax.Array:
    """Keys that draw rows `part` of `parts` equal ones of what `key`, of JAX's default kind and any shape, draws.

    The number of the part travels in the key and through `split` and `fold_in`. XLA computes no other rows: the bits
    are a function of their place (`jax_threefry_partitionable`), so the slice is taken before them.
    """
    number = jnp.broadcast_to(part.astype(jnp.uint32), (*key.shape, 1))
    data = jnp.concatenate([jax.random.key_data(key), number], axis=-1)
    return jax.random.wrap_key_data(data, impl=_implementation(parts))


@functools.cache
def _implementation(parts: int) -> Any:
    whole: Any = threefry_prng_impl

    def seed(number: jax.Array) -> jax.Array:
        return jnp.concatenate([whole.seed(number), jnp.zeros(1, jnp.uint32)])

    def split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.concatenate([whole.split(key[:2], shape), jnp.broadcast_to(key[2:], (*shape, 1))], axis=-1)

    def fold_in(key: jax.Array, number: Any) -> jax.Array:
        return jnp.concatenate([whole.fold_in(key[:2], number), key[2:]])

    def random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
        if not shape:
            return whole.random_bits(key[:2], width, shape)
        rows = shape[0]
        bits = whole.random_bits(key[:2], width, (parts * rows, *shape[1:]))
        return jax.lax.dynamic_slice_in_dim(bits, key[2].astype(jnp.int32) * rows, rows)

    implementation: Hashable = define_prng_impl(
        key_shape=(3,), seed=seed, split=split, random_bits=random_bits, fold_in=fold_in, name=f"part of {parts}"
    )
    return implementation
