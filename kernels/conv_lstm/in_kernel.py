"""Moves within the ConvLSTM kernels: between the usual layout and the packed one, and from part to part."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .layout import Packing
from .plan import Plan

HIGH = 0xFFFF0000


def serves_usual_layout(plan: Plan) -> bool:
    """Whether a kernel can read and write `[B, T, H, W, C]` itself, instead of being given packed arrays.

    It picks the same pixel of eight images out of eight registers with one strided load: 32 bits of each, which for
    bfloat16 are two neighbouring columns. Pairs of those, one from each half of the image, exchange 16 bits.
    """
    packing = plan.packing
    if packing.group != 8 or packing.batch % 8:
        return False
    return plan.dtype == jnp.float32 or packing.columns % 2 == 0


def words_scratch(plan: Plan, lanes: int):
    """Scratch of 32-bit words through which a block in the usual layout passes."""
    words = jnp.float32 if plan.dtype == jnp.float32 else jnp.uint32
    return pltpu.VMEM((8 * plan.rows * plan.packing.width * plan.dtype.itemsize // 4, lanes), words)


def read_usual(words, plan: Plan, rows: range) -> jax.Array:
    """Some rows of the block `[8, rows, W, C]` whose words these are, packed: `[rows, columns, sublanes, C]`."""
    columns = plan.packing.columns
    apart = words.shape[0] // 8
    in_row = apart // plan.rows
    packed = []
    for row in rows:
        if plan.dtype == jnp.float32:
            packed += [words[pl.ds(row * in_row + column, 8, apart), :] for column in range(columns)]
            continue
        for pair in range(columns // 2):
            left = words[pl.ds(row * in_row + pair, 8, apart), :]
            right = words[pl.ds(row * in_row + columns // 2 + pair, 8, apart), :]
            packed.append(pltpu.bitcast((left & 0xFFFF) | (right << 16), plan.dtype))
            packed.append(pltpu.bitcast((left >> 16) | (right & jnp.uint32(HIGH)), plan.dtype))
    return jnp.stack(packed).reshape(len(rows), columns, plan.packing.sublanes, words.shape[1])


def write_usual(value: jax.Array, words, plan: Plan, rows: range) -> None:
    """The inverse of `read_usual`."""
    columns = plan.packing.columns
    apart = words.shape[0] // 8
    in_row = apart // plan.rows
    for number, row in enumerate(rows):
        if plan.dtype == jnp.float32:
            for column in range(columns):
                words[pl.ds(row * in_row + column, 8, apart), :] = value[number, column]
            continue
        for pair in range(columns // 2):
            even, odd = (pltpu.bitcast(value[number, 2 * pair + i], jnp.uint32) for i in range(2))
            words[pl.ds(row * in_row + pair, 8, apart), :] = (even & 0xFFFF) | (odd << 16)
            words[pl.ds(row * in_row + columns // 2 + pair, 8, apart), :] = (even >> 16) | (odd & jnp.uint32(HIGH))


def to_words(block: jax.Array, words) -> None:
    """A block `[8, rows, W, C]` as the 32-bit words that hold it."""
    block = block.reshape(-1, block.shape[-1])
    words[...] = block if words.dtype == block.dtype else pltpu.bitcast(block, words.dtype)


def from_words(words, plan: Plan) -> jax.Array:
    """The inverse of `to_words`."""
    whole = words[...] if words.dtype == plan.dtype else pltpu.bitcast(words[...], plan.dtype)
    return whole.reshape(8, plan.rows, plan.packing.width, -1)


def from_neighbour(edge: jax.Array, packing: Packing, step: int) -> jax.Array:
    """Columns `[rows, columns, sublanes, C]` of each part as its neighbour sees them, zero where there is none.

    step: 1 gives each part what its left neighbour has, -1 what its right one has.
    """
    sublanes, lanes = edge.shape[-2:]
    flat = edge.astype(jnp.float32).reshape(-1, lanes)  # a rotation by one row is for 32 bits only
    moved = pltpu.roll(flat, step % flat.shape[0], 0)
    part = jax.lax.broadcasted_iota(jnp.int32, flat.shape, 0) & (packing.split - 1)
    # What the rotation carries from image to image, or from column to column, comes from no neighbour.
    alone = 0 if step == 1 else packing.split - 1
    return jnp.where(part == alone, 0.0, moved).astype(edge.dtype).reshape(*edge.shape[:-2], sublanes, lanes)
