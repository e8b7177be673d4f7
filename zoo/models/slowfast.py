"""Slow and SlowFast: a residual network that looks at few frames, alone or beside a thin one that looks at many.

Feichtenhofer et al. 2018, "SlowFast Networks for Video Recognition", arXiv:1812.03982, as ResNet-50 in the form that
PyTorchVideo publishes ("8x8").
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, avg_pool, max_pool
from zoo.registry import register_model

DEPTHS = (3, 4, 6, 3)
WIDTH = 64  # of the slow pathway's first level; each further one is twice as wide
ALPHA, BETA = 4, 8  # the fast pathway sees so many times as many frames, and is so many times as thin
FUSED = 2  # the slow pathway gets so many times the fast one's features
DROPOUT = 0.5  # of the classifier's input, in training

type Window = tuple[int, int, int]


class Unit(nnx.Module):
    """A convolution without bias, then batch normalisation: `[B, T, H, W, C]` to `[B, T', H', W', F]`."""

    def __init__(self, in_features: int, features: int, window: Window, strides: Window = (1, 1, 1), *, rngs: nnx.Rngs):
        # lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
        padding = tuple((size // 2, size // 2) for size in window)
        self.conv = Conv(in_features, features, window, strides=strides, padding=padding, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


class Block(nnx.Module):
    """A bottleneck, `in_time` steps long, and a residual connection: to `[B, T, H / stride, W / stride, 4 * width]`."""

    def __init__(self, in_features: int, width: int, in_time: int, stride: int, *, rngs: nnx.Rngs):
        strides = (1, stride, stride)
        self.units = nnx.List(
            [
                Unit(in_features, width, (in_time, 1, 1), rngs=rngs),
                Unit(width, width, (1, 3, 3), strides, rngs=rngs),
                Unit(width, 4 * width, (1, 1, 1), rngs=rngs),
            ]
        )
        changes = stride > 1 or in_features != 4 * width
        self.shortcut = Unit(in_features, 4 * width, (1, 1, 1), strides, rngs=rngs) if changes else None

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        y = nnx.relu(self.units[1](nnx.relu(self.units[0](x))))
        return nnx.relu(self.units[2](y) + (x if self.shortcut is None else self.shortcut(x)))


class Pathway(nnx.Module):
    """A stem and four levels of blocks; `in_time` tells how many steps each level's convolutions reach over.

    `more` features come beside the pathway's own into each level.
    """

    def __init__(self, width: int, stem_in_time: int, in_time: Sequence[int], more: Sequence[int], *, rngs: nnx.Rngs):
        self.stem = Unit(3, width, (stem_in_time, 7, 7), (1, 2, 2), rngs=rngs)
        blocks, before = [], width
        for level, (depth, steps, beside) in enumerate(zip(DEPTHS, in_time, more, strict=True)):
            for repeat in range(depth):
                stride = 2 if level and not repeat else 1
                features = before if repeat else before + beside
                blocks.append(Block(features, width * 2**level, steps, stride, rngs=rngs))
                before = 4 * width * 2**level
        self.blocks = nnx.List(blocks)
        self.features = before

    def begin(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        """What the first level sees: `[B, T, H / 4, W / 4, width]`."""
        x = nnx.relu(self.stem(x))
        return max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))

    def level(self, level: int, x: jax.Array) -> jax.Array:
        """What a level makes of its input."""
        first = sum(DEPTHS[:level])
        for index in range(first, first + DEPTHS[level]):
            x = self.blocks[index](x)
        return x


class Head(nnx.Module):
    """Dropout and a dense layer over pooled places `[B, T, H, W, C]`, whose logits are averaged."""

    def __init__(self, features: int, num_classes: int | None, *, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.logits = None if num_classes is None else nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(self, features: Float[Any, "batch features"]) -> Float[jax.Array, "batch classes"]:
        """The dense layer is linear: averaging its inputs averages its logits."""
        if self.logits is None:
            raise ValueError("this network was made without classes (num_classes=None); call features")
        return self.logits(self.dropout(features))


def _pool(x: jax.Array, wanted: Window) -> jax.Array:
    window = [min(size, there) for size, there in zip(wanted, x.shape[1:4], strict=True)]
    return avg_pool(x, window=window, strides=1, padding="VALID")


class Slow(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]`, normalised; the published weights saw 8 frames of 224x224.

    Features are averaged as the original averages them: over windows of 8x7x7, then over the windows.
    """

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        self.slow = Pathway(WIDTH, 1, (1, 1, 3, 3), (0, 0, 0, 0), rngs=rngs)
        self.pools = (8, 7, 7)
        self.feature_size = self.slow.features
        self.head = Head(self.feature_size, num_classes, rngs=rngs)

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 2048"]:
        """`[B, 2048]`: the last activations, pooled and averaged."""
        x = self.slow.begin(x)
        for level in range(len(DEPTHS)):
            x = self.slow.level(level, x)
        return _pool(x, self.pools).mean(axis=(1, 2, 3))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        return self.head(self.features(x))


class SlowFast(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]`, normalised; the published weights saw 32 frames of 224x224.

    The network makes both pathways of the clip: the fast one sees all frames, the slow one a fourth of them, spread
    evenly from the first to the last. T is a multiple of 4.
    """

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        thin = WIDTH // BETA
        widths = [thin, *(4 * thin * 2**level for level in range(3))]  # of the fast pathway, before each level
        self.slow = Pathway(WIDTH, 1, (1, 1, 3, 3), [FUSED * width for width in widths], rngs=rngs)
        self.fast = Pathway(thin, 5, (3, 3, 3, 3), (0, 0, 0, 0), rngs=rngs)
        self.fuse = nnx.List([Unit(width, FUSED * width, (7, 1, 1), (ALPHA, 1, 1), rngs=rngs) for width in widths])
        self.pools = ((8, 7, 7), (32, 7, 7))
        self.feature_size = self.slow.features + self.fast.features
        self.head = Head(self.feature_size, num_classes, rngs=rngs)

    def begin(self, x: Float[Any, "batch time height width 3"]) -> tuple[jax.Array, jax.Array]:
        """What both pathways' first levels see of a clip."""
        if x.shape[1] % ALPHA:
            raise ValueError(f"a clip of {x.shape[1]} frames: slowfast takes a multiple of {ALPHA}")
        return self.fused(0, self.slow.begin(x[:, slow_frames(x.shape[1])]), self.fast.begin(x))

    def fused(self, level: int, slow: jax.Array, fast: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The slow pathway with what the fast one saw beside it, before a level; and the fast one."""
        return jnp.concatenate([slow, nnx.relu(self.fuse[level](fast))], axis=-1), fast

    def level(self, level: int, slow: jax.Array, fast: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What a level makes of both pathways; after all but the last they are fused."""
        slow, fast = self.slow.level(level, slow), self.fast.level(level, fast)
        return self.fused(level + 1, slow, fast) if level + 1 < len(DEPTHS) else (slow, fast)

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 2304"]:
        """`[B, 2304]`: the last activations of the slow and of the fast pathway, pooled and averaged."""
        slow, fast = self.begin(x)
        for level in range(len(DEPTHS)):
            slow, fast = self.level(level, slow, fast)
        pooled = [_pool(x, window) for x, window in zip((slow, fast), self.pools, strict=True)]
        return jnp.concatenate([x.mean(axis=(1, 2, 3)) for x in pooled], axis=-1)

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        return self.head(self.features(x))


def slow_frames(num_frames: int) -> np.ndarray:
    """Which frames the slow pathway sees, as PyTorchVideo's examples choose them: int `[num_frames // 4]`."""
    return np.linspace(0, num_frames - 1, num_frames // ALPHA).astype(int)


@register_model
def slow_r50(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> Slow:
    """The slow pathway alone, a ResNet-50 of 32.5M parameters; `num_classes` defaults to Kinetics-400."""
    return Slow(num_classes, rngs=rngs)


@register_model
def slowfast_r50(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> SlowFast:
    """SlowFast on ResNet-50, 34.6M parameters; `num_classes` defaults to Kinetics-400."""
    return SlowFast(num_classes, rngs=rngs)
