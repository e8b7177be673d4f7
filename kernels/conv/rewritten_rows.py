"""Convolution of few channels, rewritten so that a matrix unit has full rows and columns to work on; plain JAX.

A matrix unit multiplies by tiles of 128 input features and 128 outputs. An RGB stem fills 3 of the former and half of
the latter. Here neighbouring pixels of a row become channels, and neighbouring outputs become features: one
convolution with fewer steps along the row, whose kernel holds the given one several times, shifted, with zeros
between. The zeros cost products, but those had been spent on empty rows before.

The zeros also meet pixels that the given kernel does not: an infinity or NaN in x makes NaN of the outputs that share a
step with those that see it.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..dispatch import Refused

type Pairs = Sequence[tuple[int, int]]

# With more channels than this the matrix unit has enough to do, and the zeros between the kernels' copies only cost.
_MOST_CHANNELS = 8
# So many features of outputs share a step, up to 8 outputs. Of 1 to 16 outputs these were the fastest on TPU v5e, by
# its compiler's schedule, for all stems of `cases.py`: 4 of 64 or 45 features, 8 of 32. Rows alone are folded:
# gathering over height or time as well moves more bytes than it saves products.
_FEATURES = 256
_MOST_OUTPUTS = 8


def serves(kernel: Sequence[int], groups: int) -> bool:
    """Whether a kernel of this shape, `[*window, C / groups, F]`, has few channels and several taps along a row."""
    return groups == 1 and kernel[-2] <= _MOST_CHANNELS and kernel[-3] > 1


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    outputs: int | None = None,
) -> jax.Array:
    """x `[N, *spatial, C]`, kernel `[*window, C, F]` to `[N, *spatial', F]`, `outputs` of a row in one step.

    Raises:
      Refused: more than 8 channels, groups, or a window of one pixel along the row.
    """
    channels, features = kernel.shape[-2:]
    if groups > 1 or channels > _MOST_CHANNELS:
        raise Refused(f"folding rows pays for up to {_MOST_CHANNELS} channels in one group, not {channels} x {groups}")
    if kernel.shape[-3] == 1:
        raise Refused(f"folding rows has nothing to gather for a window {kernel.shape[:-2]}")
    if outputs is None:
        outputs = _MOST_OUTPUTS if features * _MOST_OUTPUTS <= _FEATURES else _MOST_OUTPUTS // 2
    width, stride, low = x.shape[-2], strides[-1], padding[-1][0]
    reach = (kernel.shape[-3] - 1) * dilation[-1] + 1
    columns = (width + sum(padding[-1]) - reach) // stride + 1
    pixels = outputs * stride
    seen = -(-((outputs - 1) * stride + reach) // pixels)
    steps = -(-columns // outputs)
    # The last window may end before the row does, so the padding behind it can be negative.
    high = (steps + seen - 1) * pixels - low - width

    x = _pad(x, -2, low, high)
    x = x.reshape(*x.shape[:-2], -1, pixels * channels)
    copies = [
        _pad(kernel, -3, shift, seen * pixels - shift - reach, dilation[-1] - 1)
        for shift in range(0, outputs * stride, stride)
    ]
    folded = jnp.stack(copies, axis=-2)
    folded = folded.reshape(*kernel.shape[:-3], seen, pixels * channels, outputs * features)

    letters = "DHW"[-len(strides) :]
    out = lax.conv_general_dilated(
        x,
        folded,
        window_strides=(*strides[:-1], 1),
        padding=(*padding[:-1], (0, 0)),
        rhs_dilation=(*dilation[:-1], 1),
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    out = out.reshape(*out.shape[:-2], steps * outputs, features)
    return lax.slice_in_dim(out, 0, columns, axis=-2)


def _pad(x: jax.Array, axis: int, low: int, high: int, between: int = 0) -> jax.Array:
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, high, between)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def conv_input_gradient(g: jax.Array, kernel: jax.Array, *, spatial: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `conv(x, kernel, **options)` means for x `[N, *spatial, C]`.

    Raises:
      Refused: as `conv` does.
    """
    x = jax.ShapeDtypeStruct((g.shape[0], *spatial, kernel.shape[-2]), g.dtype)
    return jax.linear_transpose(partial(conv, kernel=kernel, **options), x)(g)[0]


def conv_weight_gradient(x: jax.Array, g: jax.Array, *, window: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `conv(x, kernel, **options)` means for the kernel `[*window, C, F]`; float32 or wider.

    Raises:
      Refused: as `conv` does.
    """
    kernel = jax.ShapeDtypeStruct((*window, x.shape[-1], g.shape[-1]), x.dtype)
    dkernel = jax.linear_transpose(lambda kernel: conv(x, kernel, **options), kernel)(g)[0]
    return dkernel.astype(jnp.promote_types(x.dtype, jnp.float32))
