"""Layers that call `zoo.kernels`: every model here convolves and pools through this file."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo import kernels

avg_pool = kernels.avg_pool
max_pool = kernels.max_pool


_HE_NORMAL = nnx.initializers.he_normal()


class Conv(nnx.Module):
    """Convolution over the last `len(window)` axes before the channels: `[..., *spatial, C]` to `[..., *spatial', F]`.

    The kernel `[*window, C / groups, F]` starts from a He normal distribution, which suits the ReLU family.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        window: Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: kernels.Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = _HE_NORMAL,
        rngs: nnx.Rngs,
    ):
        shape = (*window, in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((out_features,))) if use_bias else None
        self.strides, self.padding, self.dilation, self.groups = strides, padding, dilation, groups

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        y = kernels.conv(
            x,
            self.kernel[...].astype(x.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class DepthwiseConv(nnx.Module):
    """One filter a channel: `[..., *spatial, C]` to `[..., *spatial', C]`, kernel `[*window, 1, C]`, no bias."""

    def __init__(
        self,
        features: int,
        window: Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: kernels.Padding = "SAME",
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(_HE_NORMAL(rngs.params(), (*window, 1, features), jnp.float32))
        self.strides, self.padding = strides, padding

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype)
        return kernels.depthwise_conv(x, kernel, strides=self.strides, padding=self.padding)
