"""Max-pooling on TPU: one pass over the array, which its HBM traffic bounds."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..arguments import Pairs
from ..pallas_tpu import call
from .tpu_view import (
    LANES,
    View,
    channels_a_step,
    check_registers,
    lane_groups,
    largest,
    largest_of_registers,
    taps,
    tiled_bytes,
    view,
    vmem_limit,
)

# Steps of up to this many bytes of input hide their own start, and leave little at either end with nothing to hide it.
_STEP_BYTES = 2 << 20


def max_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    channels: int | None = None,
) -> jax.Array:
    """Largest value in each window of x `[N, *spatial, C]`, float32 or bfloat16.

    A grid step makes all places of `channels` channels of one image.

    Raises:
      Refused: an image of 128 channels is more than VMEM holds, or its rows are too long.
    """
    seen = view(x.shape[1:-1], window, strides, padding)
    check_registers(seen, "max_pool")
    x = seen.into(x)
    n, *sizes, depth = x.shape
    results = (seen.a.out, seen.b.out, seen.s.out)
    channels = channels or channels_a_step(
        depth, lambda c: tiled_bytes((*sizes, c), x.dtype.itemsize), _STEP_BYTES, whole_lanes=seen.s.stride > 1
    )
    slot = (_together(seen), seen.b.out, seen.s.padded, min(channels, LANES))
    strided = seen.s.stride > 1
    held = 2 * sum(tiled_bytes((*places, channels), x.dtype.itemsize) for places in (sizes, results))
    limit = vmem_limit("max_pool", held + strided * tiled_bytes(slot, 4))

    def kernel(x_ref, out_ref, *scratch):
        _maxima(x_ref, out_ref, scratch[0] if scratch else None, seen)

    out = call(
        kernel,
        name="max_pool",
        grid=(n, pl.cdiv(depth, channels)),
        in_specs=[pl.BlockSpec((1, *sizes, channels), lambda n, c: (n, 0, 0, 0, c))],
        out_specs=pl.BlockSpec((1, *results, channels), lambda n, c: (n, 0, 0, 0, c)),
        out_shape=jax.ShapeDtypeStruct((n, *results, depth), x.dtype),
        scratch_shapes=[pltpu.VMEM(slot, jnp.float32)] if strided else [],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=limit),
    )(x)
    return seen.out_of(out)


def _together(seen: View) -> int:
    """How many rows of the result are computed side by side: about 16 registers, for the scheduler to mix."""
    return max(1, min(8, 16 // (seen.b.out * pl.cdiv(seen.s.size, 8)), seen.a.out))


def _maxima(x_ref, out_ref, scratch, seen: View) -> None:
    together = _together(seen)

    def step(i, _):
        for u in range(together):
            place = jnp.minimum(i * together + u, seen.a.out - 1)
            rows = [seen.a.source(place, j) for j in range(seen.a.window)]
            for lanes in lane_groups(x_ref.shape[-1]):
                v = largest([x_ref[0, row, :, :, lanes].astype(jnp.float32) for row in rows])
                v = largest_of_registers(v, seen.b)
                slot = None if scratch is None else scratch.at[u]
                out_ref[0, place, :, :, lanes] = largest(taps(v, slot, seen.s)).astype(out_ref.dtype)
        return 0

    lax.fori_loop(0, pl.cdiv(seen.a.out, together), step, 0)
