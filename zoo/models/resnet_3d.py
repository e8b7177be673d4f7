"""ResNet-18 for video in three forms: 3D convolutions (R3D), mixed (MC3), and factorised in space and time (R(2+1)D).

Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition", arXiv:1711.11248, in the sizes
that torchvision publishes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.registry import register_model


class Unit(nnx.Module):
    """Convolution with "same" padding counted from the centre, and batch normalisation: `[B, T, H, W, C]` to F."""

    def __init__(
        self,
        in_features: int,
        features: int,
        window: tuple[int, int, int],
        strides: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
    ):
        # lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
        padding = tuple((size // 2, size // 2) for size in window)
        self.conv = Conv(in_features, features, window, strides=strides, padding=padding, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


class Factorised(nnx.Module):
    """A convolution in space and one in time with ReLU between, of as many parameters as the 3D one it replaces."""

    def __init__(self, in_features: int, between: int, features: int, stride: int, *, rngs: nnx.Rngs):
        self.space = Unit(in_features, between, (1, 3, 3), (1, stride, stride), rngs=rngs)
        self.time = Unit(between, features, (3, 1, 1), (stride, 1, 1), rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        return self.time(nnx.relu(self.space(x)))


def _full(in_features: int, between: int, features: int, stride: int, *, rngs: nnx.Rngs) -> Unit:
    del between
    return Unit(in_features, features, (3, 3, 3), (stride, stride, stride), rngs=rngs)


def _spatial(in_features: int, between: int, features: int, stride: int, *, rngs: nnx.Rngs) -> Unit:
    del between
    return Unit(in_features, features, (1, 3, 3), (1, stride, stride), rngs=rngs)


class Block(nnx.Module):
    """Two convolutions and a residual connection: `[B, T, H, W, C]` to `[B, T', H', W', F]`."""

    def __init__(
        self, convolution: Callable[..., nnx.Module], in_features: int, features: int, stride: int, *, rngs: nnx.Rngs
    ):
        # So many features between space and time that both forms have the same number of parameters.
        between = (in_features * features * 27) // (in_features * 9 + 3 * features)
        self.first = convolution(in_features, between, features, stride, rngs=rngs)
        self.second = convolution(features, between, features, 1, rngs=rngs)
        in_time = 1 if convolution is _spatial else stride
        changes = stride > 1 or in_features != features
        strides = (in_time, stride, stride)
        self.shortcut = Unit(in_features, features, (1, 1, 1), strides, rngs=rngs) if changes else None

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(self.second(nnx.relu(self.first(x))) + shortcut)


class ResNet3D(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]`, normalised; the published weights saw 16 frames of 112x112."""

    def __init__(
        self,
        stem: Callable[..., nnx.Module],
        convolutions: tuple[Callable[..., nnx.Module], ...],
        num_classes: int | None,
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = stem(rngs=rngs)
        blocks, before = [], 64
        for level, convolution in enumerate(convolutions):
            features = 64 * 2**level
            blocks += [
                Block(convolution, before, features, 2 if level else 1, rngs=rngs),
                Block(convolution, features, features, 1, rngs=rngs),
            ]
            before = features
        self.blocks = nnx.List(blocks)
        self.feature_size = before
        self.logits = None if num_classes is None else nnx.Linear(before, num_classes, rngs=rngs)

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 512"]:
        """`[B, 512]`: the last activations averaged over time and space."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x.mean(axis=(1, 2, 3))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        if self.logits is None:
            raise ValueError("this network was made without classes (num_classes=None); call features")
        return self.logits(self.features(x))


class Stem(nnx.Module):
    """The first convolutions, each with batch normalisation and ReLU: `[B, T, H, W, 3]` to `[B, T, H/2, W/2, 64]`."""

    def __init__(self, *units: tuple[int, int, tuple[int, int, int], tuple[int, int, int]], rngs: nnx.Rngs):
        self.units = nnx.List([Unit(*unit, rngs=rngs) for unit in units])

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        for unit in self.units:
            x = nnx.relu(unit(x))
        return x


_STEM_3D = partial(Stem, (3, 64, (3, 7, 7), (1, 2, 2)))
_STEM_FACTORISED = partial(Stem, (3, 45, (1, 7, 7), (1, 2, 2)), (45, 64, (3, 1, 1), (1, 1, 1)))


@register_model
def r3d_18(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> ResNet3D:
    """R3D-18, 33.4M parameters: every convolution 3x3x3."""
    return ResNet3D(_STEM_3D, (_full,) * 4, num_classes, rngs=rngs)


@register_model
def mc3_18(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> ResNet3D:
    """MC3-18, 11.7M parameters: 3D convolutions in the first level, 2D ones behind it."""
    return ResNet3D(_STEM_3D, (_full, _spatial, _spatial, _spatial), num_classes, rngs=rngs)


@register_model
def r2plus1d_18(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> ResNet3D:
    """R(2+1)D-18, 31.5M parameters: every 3D convolution split into one in space and one in time."""
    return ResNet3D(_STEM_FACTORISED, (Factorised,) * 4, num_classes, rngs=rngs)
