"""Depthwise convolution over one, two or three axes: one filter a channel."""

from collections.abc import Sequence

import jax

from .. import dispatch, reference
from ..arguments import Padding, check_floating, check_input, over_folded_batch, pairs, per_axis
from ..conv import vjp


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """One filter a channel: x `[*batch, *spatial, C]`, kernel `[*window, 1, C]`, result `[*batch, *spatial', C]`.

    Raises:
      ValueError: shapes or dtypes that do not fit, or no implementation asked for serves the call.
    """
    axes = kernel.ndim - 2
    check_input(x, axes, "depthwise_conv")
    check_floating("depthwise_conv", x=x, kernel=kernel)
    if kernel.shape[-2:] != (1, x.shape[-1]):
        raise ValueError(f"depthwise_conv: kernel {kernel.shape} should end in (1, {x.shape[-1]}) for x {x.shape}")
    strides = per_axis(strides, axes, "strides")
    padding = pairs(padding, x.shape[-axes - 1 : -1], kernel.shape[:-2], strides, (1,) * axes)
    options = {"strides": strides, "padding": padding}
    operations = ("depthwise_conv", "depthwise_conv_input_gradient", "depthwise_conv_weight_gradient")

    def fold(x):
        call = dispatch.call("depthwise_conv", [x, kernel], options, implementation)
        if dispatch.is_plain(operations, call):
            return reference.depthwise_conv(x, kernel, **options)
        return vjp.depthwise_conv(x, kernel, call)

    return over_folded_batch(fold, x, axes)
