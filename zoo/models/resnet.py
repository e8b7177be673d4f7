"""Residual networks for images: ResNet-18 and ResNet-50.

He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, in the form that torchvision
publishes: where a bottleneck shrinks the image its 3x3 convolution does, not its first 1x1 ("v1.5").
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, max_pool
from zoo.registry import register_model

STEM_FEATURES = 64


class Unit(nnx.Module):
    """A square convolution without bias, and batch normalisation: `[..., H, W, C]` to `[..., H', W', F]`."""

    def __init__(self, in_features: int, features: int, window: int, stride: int = 1, *, rngs: nnx.Rngs):
        # lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
        padding = ((window // 2, window // 2),) * 2
        self.conv = Conv(
            in_features, features, (window, window), strides=stride, padding=padding, use_bias=False, rngs=rngs
        )
        self.norm = nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


class Block(nnx.Module):
    """A few units and a residual connection: `[..., H, W, C]` to `[..., H / stride, W / stride, F]`, rounded up.

    Basic: 3x3, 3x3, both `width` wide. Bottleneck: 1x1 and 3x3 of `width`, then 1x1 of four times that.
    """

    def __init__(self, in_features: int, width: int, stride: int, *, bottleneck: bool, rngs: nnx.Rngs):
        features = 4 * width if bottleneck else width
        if bottleneck:
            layers = [(in_features, width, 1, 1), (width, width, 3, stride), (width, features, 1, 1)]
        else:
            layers = [(in_features, width, 3, stride), (width, features, 3, 1)]
        self.units = nnx.List([Unit(*layer, rngs=rngs) for layer in layers])
        changes = stride > 1 or in_features != features
        self.shortcut = Unit(in_features, features, 1, stride, rngs=rngs) if changes else None

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        y = x
        for unit in list(self.units)[:-1]:
            y = nnx.relu(unit(y))
        return nnx.relu(self.units[-1](y) + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """Logits and features of images or of video, frame by frame; made for 224x224, normalised.

    The width doubles from level to level, from 64; `blocks` says how many blocks each level has.
    """

    def __init__(self, blocks: Sequence[int], num_classes: int | None, *, bottleneck: bool, rngs: nnx.Rngs):
        self.stem = Unit(3, STEM_FEATURES, 7, 2, rngs=rngs)
        made, before = [], STEM_FEATURES
        for level, repeats in enumerate(blocks):
            width = STEM_FEATURES * 2**level
            for repeat in range(repeats):
                stride = 2 if level and not repeat else 1
                made.append(Block(before, width, stride, bottleneck=bottleneck, rngs=rngs))
                before = 4 * width if bottleneck else width
        self.blocks = nnx.List(made)
        self.frame_feature_size = before
        self.logits = None if num_classes is None else nnx.Linear(before, num_classes, rngs=rngs)

    def frame_features(self, x: Float[Any, "*batch height width 3"]) -> Float[jax.Array, "*batch features"]:
        """`[..., frame_feature_size]` of images `[..., H, W, 3]`: the last activations, averaged over the image."""
        x = max_pool(nnx.relu(self.stem(x)), window=(3, 3), strides=2, padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return x.mean(axis=(-3, -2))

    def features(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch features"]:
        """Features of images `[B, H, W, 3]`, or of video `[B, T, H, W, 3]`, averaged over its frames."""
        frames = self.frame_features(x)
        return frames.mean(axis=1) if x.ndim == 5 else frames

    def __call__(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]` of what `features` takes."""
        if self.logits is None:
            raise ValueError("this resnet was made without classes (num_classes=None); call frame_features")
        return self.logits(self.features(x))


@register_model
def resnet18(*, num_classes: int | None = 1000, rngs: nnx.Rngs) -> ResNet:
    """ResNet-18 of 11.7M parameters; `num_classes` defaults to ImageNet-1k, None leaves the classifier out."""
    return ResNet((2, 2, 2, 2), num_classes, bottleneck=False, rngs=rngs)


@register_model
def resnet50(*, num_classes: int | None = 1000, rngs: nnx.Rngs) -> ResNet:
    """ResNet-50 of 25.6M parameters; `num_classes` defaults to ImageNet-1k, None leaves the classifier out."""
    return ResNet((3, 4, 6, 3), num_classes, bottleneck=True, rngs=rngs)
