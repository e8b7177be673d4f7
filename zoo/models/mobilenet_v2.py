"""MobileNetV2: inverted residuals with linear bottlenecks, for images on phones.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381, at width 1 in the form
that torchvision publishes.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, DepthwiseConv
from zoo.registry import register_model

# Expansion, features, number of blocks, stride of the first: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_FEATURES, HEAD_FEATURES = 32, 1280
DROPOUT = 0.2  # of the classifier's input, in training

# lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
_PADDING = ((1, 1), (1, 1))


class Unit(nnx.Module):
    """A convolution without bias, then batch normalisation: `[..., H, W, C]` to `[..., H', W', F]`."""

    def __init__(self, conv: Conv | DepthwiseConv, features: int, *, rngs: nnx.Rngs):
        self.conv = conv
        self.norm = nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


def pointwise(in_features: int, features: int, *, rngs: nnx.Rngs) -> Unit:
    """A 1x1 unit."""
    return Unit(Conv(in_features, features, (1, 1), use_bias=False, rngs=rngs), features, rngs=rngs)


class InvertedResidual(nnx.Module):
    """Widen, filter each channel, narrow: `[..., H, W, C]` to `[..., H / stride, W / stride, F]`, rounded up.

    Where the shape stays, the input is added.
    """

    def __init__(self, in_features: int, features: int, *, expansion: int, stride: int, rngs: nnx.Rngs):
        wide = in_features * expansion
        self.expand = pointwise(in_features, wide, rngs=rngs) if expansion > 1 else None
        filters = DepthwiseConv(wide, (3, 3), strides=stride, padding=_PADDING, rngs=rngs)
        self.depthwise = Unit(filters, wide, rngs=rngs)
        self.project = pointwise(wide, features, rngs=rngs)
        self.residual = stride == 1 and in_features == features

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    """Logits and features of images or of video, frame by frame; made for 224x224, normalised."""

    frame_feature_size = HEAD_FEATURES

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        stem = Conv(3, STEM_FEATURES, (3, 3), strides=2, padding=_PADDING, use_bias=False, rngs=rngs)
        self.stem = Unit(stem, STEM_FEATURES, rngs=rngs)
        blocks, before = [], STEM_FEATURES
        for expansion, features, repeats, stride in STAGES:
            for repeat in range(repeats):
                strides = 1 if repeat else stride
                blocks.append(InvertedResidual(before, features, expansion=expansion, stride=strides, rngs=rngs))
                before = features
        self.blocks = nnx.List(blocks)
        self.head = pointwise(before, HEAD_FEATURES, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.classifier = None if num_classes is None else nnx.Linear(HEAD_FEATURES, num_classes, rngs=rngs)

    def frame_features(self, x: Float[Any, "*batch height width 3"]) -> Float[jax.Array, "*batch features"]:
        """`[..., 1280]` of images `[..., H, W, 3]`: the last activations, averaged over the image."""
        x = jax.nn.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return jax.nn.relu6(self.head(x)).mean(axis=(-3, -2))

    def features(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch features"]:
        """`[B, 1280]` of images `[B, H, W, 3]`, or of video `[B, T, H, W, 3]`, averaged over its frames."""
        frames = self.frame_features(x)
        return frames.mean(axis=1) if x.ndim == 5 else frames

    def __call__(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]` of what `features` takes."""
        if self.classifier is None:
            raise ValueError("this mobilenet_v2 was made without classes (num_classes=None); call frame_features")
        return self.classifier(self.dropout(self.features(x)))


@register_model
def mobilenet_v2(*, num_classes: int | None = 1000, rngs: nnx.Rngs) -> MobileNetV2:
    """MobileNetV2 of 3.5M parameters; `num_classes` defaults to ImageNet-1k, None leaves the classifier out."""
    return MobileNetV2(num_classes, rngs=rngs)
