"""How every TPU kernel here is called: `pallas_call` that also passes shard_map's checks."""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import pallas as pl


def call(kernel: Callable[..., None], *, out_shape: Any, **options: Any) -> Callable[..., Any]:
    """`pl.pallas_call(kernel, out_shape=out_shape, **options)`, whose results vary over the mesh as its operands do.

    Within `jax.shard_map` an array's type says over which mesh axes it varies. Pallas wants it said of each result.
    """

    def run(*operands: jax.Array) -> Any:
        varying = frozenset[Any]().union(*(_varying(operand) for operand in operands))
        kind = next(jax.typeof(x).manual_axis_type for x in operands if _varying(x) == varying)
        shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, manual_axis_type=kind), out_shape)
        # A TPU has no 64-bit integers, and with them enabled Python's numbers would be such within the kernel.
        with jax.enable_x64(False):
            return pl.pallas_call(kernel, out_shape=shapes, **options)(*(_varied(x, varying) for x in operands))

    return run


def _varying(x: jax.Array) -> frozenset[Any]:
    """The mesh axes over which x differs from device to device, known within shard_map only."""
    return jax.typeof(x).manual_axis_type.varying


def _varied(x: jax.Array, varying: frozenset[Any]) -> jax.Array:
    missing = tuple(varying - _varying(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x
