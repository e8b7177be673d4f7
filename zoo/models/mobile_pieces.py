"""Pieces of the detectors that phones run: bottlenecks and separable convolutions whose normalisation may be folded.

Published weights of such networks come with batch normalisation multiplied into the kernels, so that a bias is left of
it. `batch_norm=True` gives the pieces as they are trained from nothing; without it they can still be fine-tuned.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, DepthwiseConv

type Activation = Callable[[jax.Array], jax.Array]

# What the published graphs multiply with where the paper divides by 6: a sixth in half precision.
_SIXTH = 0.1666259765625


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """MobileNetV3's piecewise linear sigmoid, 0 below -3 and 1 above 3."""
    return jax.nn.relu6(x + 3) * _SIXTH


def hard_swish(x: jax.Array) -> jax.Array:
    """MobileNetV3's x times `hard_sigmoid`."""
    return x * hard_sigmoid(x)


class Unit(nnx.Module):
    """A convolution, then batch normalisation or the bias that is left of it, and an activation."""

    def __init__(
        self,
        conv: Conv | DepthwiseConv,
        features: int,
        activation: Activation | None = None,
        *,
        batch_norm: bool,
        rngs: nnx.Rngs,
    ):
        self.conv, self.activation = conv, activation
        self.norm = nnx.BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs) if batch_norm else None
        self.bias = None if batch_norm else nnx.Param(jnp.zeros(features))

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        y = self.conv(x)
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        if self.norm is not None:
            y = self.norm(y).astype(y.dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(y.dtype)
        return y if self.activation is None else self.activation(y)


def pointwise(
    in_features: int, features: int, activation: Activation | None = None, *, batch_norm: bool, rngs: nnx.Rngs
) -> Unit:
    """A 1x1 unit."""
    conv = Conv(in_features, features, (1, 1), use_bias=False, rngs=rngs)
    return Unit(conv, features, activation, batch_norm=batch_norm, rngs=rngs)


class Separable(nnx.Module):
    """One filter a channel without bias, then a 1x1 unit: `[..., H, W, C]` to `[..., H, W, F]`."""

    def __init__(
        self,
        in_features: int,
        features: int,
        window: int,
        activation: Activation | None = None,
        *,
        batch_norm: bool,
        rngs: nnx.Rngs,
    ):
        self.depthwise = DepthwiseConv(in_features, (window, window), rngs=rngs)
        self.pointwise = pointwise(in_features, features, activation, batch_norm=batch_norm, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        return self.pointwise(self.depthwise(x))


class SqueezeExcite(nnx.Module):
    """Each channel scaled by what all channels' means say: `[..., H, W, C]` to the same."""

    def __init__(self, features: int, squeezed: int, gate: Activation, *, use_bias: bool = True, rngs: nnx.Rngs):
        self.squeeze = Conv(features, squeezed, (1, 1), rngs=rngs)
        self.excite = Conv(squeezed, features, (1, 1), use_bias=use_bias, rngs=rngs)
        self.gate = gate

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        means = x.mean(axis=(-3, -2), keepdims=True)
        return x * self.gate(self.excite(jax.nn.relu(self.squeeze(means))))


class Bottleneck(nnx.Module):
    """Widen, filter each channel, perhaps squeeze and excite, narrow; where the shape stays, the input is added.

    `[..., H, W, C]` to `[..., H / strides, W / strides, F]`, rounded up.
    """

    def __init__(
        self,
        in_features: int,
        wide: int,
        features: int,
        *,
        window: int,
        strides: int,
        activation: Activation,
        squeezed: int = 0,
        batch_norm: bool,
        rngs: nnx.Rngs,
    ):
        norm: dict[str, Any] = {"batch_norm": batch_norm, "rngs": rngs}
        self.expand = pointwise(in_features, wide, activation, **norm) if wide != in_features else None
        filters = DepthwiseConv(wide, (window, window), strides=strides, rngs=rngs)
        self.depthwise = Unit(filters, wide, activation, **norm)
        self.squeeze_excite = SqueezeExcite(wide, squeezed, hard_sigmoid, rngs=rngs) if squeezed else None
        self.project = pointwise(wide, features, **norm)
        self.residual = strides == 1 and in_features == features

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        return self.narrow(x, self.widen(x))

    def widen(self, x: Float[Any, "..."]) -> jax.Array:
        """The first step, which some networks look at."""
        return x if self.expand is None else self.expand(x)

    def narrow(self, x: Float[Any, "..."], wide: Float[Any, "..."]) -> jax.Array:
        """The rest, of the block's input and what `widen` made of it."""
        y = self.depthwise(wide)
        y = self.project(y if self.squeeze_excite is None else self.squeeze_excite(y))
        return x + y if self.residual else y


def bottlenecks(
    in_features: int, rows: Sequence[tuple[int, int, int, int, Activation, int]], *, batch_norm: bool, rngs: nnx.Rngs
) -> list[Bottleneck]:
    """Bottlenecks one after another, a row each: wide, window, features, strides, activation, squeezed (or 0)."""
    blocks = []
    for wide, window, features, strides, activation, squeezed in rows:
        block = Bottleneck(
            in_features,
            wide,
            features,
            window=window,
            strides=strides,
            activation=activation,
            squeezed=squeezed,
            batch_norm=batch_norm,
            rngs=rngs,
        )
        blocks.append(block)
        in_features = features
    return blocks
