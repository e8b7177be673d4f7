"""EfficientNet-Lite0: MobileNetV2's inverted bottlenecks at EfficientNet's widths, made for phones.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946; the Lite
variants (2020) drop squeeze-and-excitation and take ReLU6 for swish, so that they quantise well.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, DepthwiseConv
from zoo.registry import register_model

# Number of blocks, expansion, features, strides of the first block, window: the seven stages of EfficientNet-B0.
STAGES = (
    (1, 1, 16, 1, 3),
    (2, 6, 24, 2, 3),
    (2, 6, 40, 2, 5),
    (3, 6, 80, 2, 3),
    (3, 6, 112, 1, 5),
    (4, 6, 192, 2, 5),
    (1, 6, 320, 1, 3),
)
STEM_FEATURES, HEAD_FEATURES = 32, 1280

# The original's training: how often the classifier's input and, rising to the last block, a residual branch is dropped.
DROPOUT, BRANCH_DROPOUT = 0.2, 0.2


class Unit(nnx.Module):
    """A convolution without bias, then batch normalisation: `[..., H, W, C]` to `[..., H', W', F]`."""

    def __init__(self, conv: Conv | DepthwiseConv, features: int, *, rngs: nnx.Rngs):
        self.conv = conv
        self.norm = nnx.BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs)  # both the original's

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


def pointwise(in_features: int, features: int, *, rngs: nnx.Rngs) -> Unit:
    """A 1x1 unit."""
    return Unit(Conv(in_features, features, (1, 1), use_bias=False, rngs=rngs), features, rngs=rngs)


class InvertedBottleneck(nnx.Module):
    """Widen, filter each channel, narrow: `[..., H, W, C]` to `[..., H / strides, W / strides, F]`, rounded up.

    Where the shape stays, the input is added; in training this branch is then left out of an image with probability
    `dropout` (stochastic depth, arXiv:1603.09382).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        expansion: int,
        window: int,
        strides: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        wide = in_features * expansion
        self.expand = pointwise(in_features, wide, rngs=rngs) if expansion > 1 else None
        self.depthwise = Unit(DepthwiseConv(wide, (window, window), strides=strides, rngs=rngs), wide, rngs=rngs)
        self.project = pointwise(wide, features, rngs=rngs)
        self.residual = strides == 1 and in_features == features
        if self.residual:
            self.dropout = nnx.Dropout(dropout, broadcast_dims=(-3, -2, -1), rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(y)))
        return x + self.dropout(y) if self.residual else y


class EfficientNetLite0(nnx.Module):
    """Logits and features of images or of video, frame by frame; made for 224x224, (pixel - 127) / 128."""

    frame_feature_size = HEAD_FEATURES

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        stem = Conv(3, STEM_FEATURES, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.stem = Unit(stem, STEM_FEATURES, rngs=rngs)
        self.blocks = nnx.List()
        num_blocks = sum(stage[0] for stage in STAGES)
        in_features = STEM_FEATURES
        for repeats, expansion, features, strides, window in STAGES:
            for repeat in range(repeats):
                block = InvertedBottleneck(
                    in_features,
                    features,
                    expansion=expansion,
                    window=window,
                    strides=1 if repeat else strides,
                    dropout=BRANCH_DROPOUT * len(self.blocks) / num_blocks,
                    rngs=rngs,
                )
                self.blocks.append(block)
                in_features = features
        self.head = pointwise(in_features, HEAD_FEATURES, rngs=rngs)
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
        """Logits `[B, num_classes]` of what `features` takes; for video, the average of the frames' logits.

        The classifier is linear: averaging its inputs averages its logits.
        """
        if self.classifier is None:
            raise ValueError("this efficientnet_lite0 was made without classes (num_classes=None); call frame_features")
        return self.classifier(self.dropout(self.features(x)))


@register_model
def efficientnet_lite0(*, num_classes: int | None = 1000, rngs: nnx.Rngs) -> EfficientNetLite0:
    """EfficientNet-Lite0 of 4.65M parameters for RGB images and video; `num_classes` defaults to ImageNet-1k.

    None leaves the classifier out, for use as another network's frame CNN.
    """
    return EfficientNetLite0(num_classes, rngs=rngs)
