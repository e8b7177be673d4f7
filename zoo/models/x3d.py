"""X3D: a small network widened one axis at a time, with depthwise 3D filters and squeeze-and-excitation.

Feichtenhofer 2020, "X3D: Expanding Architectures for Efficient Video Recognition", arXiv:2004.04730, in the form that
PyTorchVideo publishes. XS, S and M are one network for clips of different lengths and sizes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, DepthwiseConv, avg_pool
from zoo.registry import register_model

STEM_FEATURES = 24
# Features and blocks of the four stages: 12, 24, 48, 96 and 1, 2, 5, 3, widened by 2 and deepened by 2.2.
STAGES = ((24, 3), (48, 5), (96, 11), (192, 7))
EXPANSION, SQUEEZE = 2.25, 1 / 16
HEAD_FEATURES = 2048
DROPOUT = 0.5  # of the classifier's input, in training


def _equal_ends(window: Sequence[int]) -> tuple[tuple[int, int], ...]:
    # lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
    return tuple((size // 2, size // 2) for size in window)


class Unit(nnx.Module):
    """A convolution without bias, then batch normalisation: `[B, T, H, W, C]` to `[B, T', H', W', F]`."""

    def __init__(self, conv: Conv | DepthwiseConv, features: int, *, rngs: nnx.Rngs):
        self.conv = conv
        self.norm = nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


def point_conv(in_features: int, features: int, strides: Sequence[int] = (1, 1, 1), *, rngs: nnx.Rngs) -> Conv:
    """A 1x1x1 convolution without bias."""
    return Conv(in_features, features, (1, 1, 1), strides=strides, use_bias=False, rngs=rngs)


def pointwise(in_features: int, features: int, strides: Sequence[int] = (1, 1, 1), *, rngs: nnx.Rngs) -> Unit:
    """A 1x1x1 unit."""
    return Unit(point_conv(in_features, features, strides, rngs=rngs), features, rngs=rngs)


class Excitation(nnx.Module):
    """Each channel times a number between 0 and 1 that depends on the means of all (arXiv:1709.01507)."""

    def __init__(self, features: int, between: int, *, rngs: nnx.Rngs):
        self.squeeze = nnx.Linear(features, between, rngs=rngs)
        self.excite = nnx.Linear(between, features, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        means = x.mean(axis=(1, 2, 3))
        return x * jax.nn.sigmoid(self.excite(nnx.relu(self.squeeze(means))))[:, None, None, None]


class Block(nnx.Module):
    """Widen, filter each channel, narrow, and add: `[B, T, H, W, C]` to `[B, T, H / stride, W / stride, F]`."""

    def __init__(self, in_features: int, features: int, stride: int, *, excited: bool, rngs: nnx.Rngs):
        wide, strides = int(EXPANSION * features), (1, stride, stride)
        self.expand = pointwise(in_features, wide, rngs=rngs)
        filters = DepthwiseConv(wide, (3, 3, 3), strides=strides, padding=_equal_ends((3, 3, 3)), rngs=rngs)
        self.depthwise = Unit(filters, wide, rngs=rngs)
        self.excitation = Excitation(wide, squeezed(wide), rngs=rngs) if excited else None
        self.project = pointwise(wide, features, rngs=rngs)
        self.shortcut = _shortcut(in_features, features, strides, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        y = self.depthwise(nnx.relu(self.expand(x)))
        y = self.project(nnx.silu(y if self.excitation is None else self.excitation(y)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _shortcut(in_features: int, features: int, strides: tuple[int, int, int], *, rngs: nnx.Rngs) -> Unit | Conv | None:
    """The original normalises a shortcut only where the number of features changes."""
    if in_features != features:
        return pointwise(in_features, features, strides, rngs=rngs)
    return point_conv(in_features, features, strides, rngs=rngs) if max(strides) > 1 else None


def squeezed(features: int) -> int:
    """A sixteenth of the features, in the original's steps of 8."""
    share = features * SQUEEZE
    steps = max(8, int(share + 4) // 8 * 8)
    return steps + 8 if steps < 0.9 * share else steps


class Stem(nnx.Module):
    """3x3 in space, then 5 in time for each channel, and ReLU: `[B, T, H, W, 3]` to `[B, T, H / 2, W / 2, 24]`."""

    def __init__(self, *, rngs: nnx.Rngs):
        padding = _equal_ends((1, 3, 3))
        self.space = Conv(3, STEM_FEATURES, (1, 3, 3), strides=(1, 2, 2), padding=padding, use_bias=False, rngs=rngs)
        self.time = Unit(
            DepthwiseConv(STEM_FEATURES, (5, 1, 1), padding=_equal_ends((5, 1, 1)), rngs=rngs), STEM_FEATURES, rngs=rngs
        )

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        return nnx.relu(self.time(self.space(x)))


class X3D(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]`, normalised.

    The last pooling window is as long and wide as a clip of `num_frames` and `size`. What is larger gives several
    places, whose probabilities are averaged; in what is smaller the window shrinks.
    """

    feature_size = HEAD_FEATURES

    def __init__(self, num_frames: int, size: int, num_classes: int | None, *, rngs: nnx.Rngs):
        self.stem = Stem(rngs=rngs)
        blocks, before = [], STEM_FEATURES
        for features, repeats in STAGES:
            for repeat in range(repeats):
                stride = 1 if repeat else 2
                blocks.append(Block(before, features, stride, excited=repeat % 2 == 0, rngs=rngs))
                before = features
        self.blocks = nnx.List(blocks)
        wide = int(EXPANSION * before)
        self.head = pointwise(before, wide, rngs=rngs)
        self.pools = (num_frames, -(-size // 32), -(-size // 32))
        self.project = point_conv(wide, HEAD_FEATURES, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.logits = None if num_classes is None else nnx.Linear(HEAD_FEATURES, num_classes, rngs=rngs)

    def pooled(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        """`[B, T', H', W', 2048]`: what the classifier sees; one place for a clip of the right size."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = nnx.relu(self.head(x))
        window = [min(size, there) for size, there in zip(self.pools, x.shape[1:4], strict=True)]
        return nnx.relu(self.project(avg_pool(x, window=window, strides=1, padding="VALID")))

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 2048"]:
        """`[B, 2048]`: what the classifier sees, averaged over its places."""
        return self.pooled(x).mean(axis=(1, 2, 3))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`; of several places, those whose softmax is the average of the places'."""
        if self.logits is None:
            raise ValueError("this x3d was made without classes (num_classes=None); call features")
        logits = self.logits(self.dropout(self.pooled(x)))
        places = math.prod(logits.shape[1:4])
        if places == 1:
            return logits[:, 0, 0, 0]
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=(1, 2, 3)) - math.log(places)


@register_model
def x3d_xs(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> X3D:
    """X3D-XS of 3.8M parameters, for 4 frames of 160x160; `num_classes` defaults to Kinetics-400."""
    return X3D(4, 160, num_classes, rngs=rngs)


@register_model
def x3d_s(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> X3D:
    """X3D-S of 3.8M parameters, for 13 frames of 160x160; `num_classes` defaults to Kinetics-400."""
    return X3D(13, 160, num_classes, rngs=rngs)


@register_model
def x3d_m(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> X3D:
    """X3D-M of 3.8M parameters, for 16 frames of 224x224; `num_classes` defaults to Kinetics-400."""
    return X3D(16, 224, num_classes, rngs=rngs)
