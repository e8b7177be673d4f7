"""S3D: Inception-v1 in which every 3D filter is one in space and one in time.

Xie et al. 2017, "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification",
arXiv:1712.04851, in the form that torchvision publishes: without the paper's gates.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.inception import BLOCKS
from zoo.models.layers import Conv, avg_pool, max_pool
from zoo.registry import register_model

DROPOUT = 0.2  # of the classifier's input, in training


class Unit(nnx.Module):
    """Convolution, batch normalisation, ReLU: `[B, T, H, W, C]` to `[B, T', H', W', F]`."""

    def __init__(
        self,
        in_features: int,
        features: int,
        window: Sequence[int],
        strides: Sequence[int] = (1, 1, 1),
        *,
        rngs: nnx.Rngs,
    ):
        # lax's "SAME" pads a strided window at the end first; the published weights were trained with equal ends.
        padding = tuple((size // 2, size // 2) for size in window)
        self.conv = Conv(in_features, features, window, strides=strides, padding=padding, use_bias=False, rngs=rngs)
        # The original's momentum, 0.999, would need thousands of steps to follow new data.
        self.norm = nnx.BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return nnx.relu(self.norm(self.conv(x))).astype(x.dtype)


class Separable(nnx.Module):
    """A unit in space, then one in time, each `window` wide and with `stride`."""

    def __init__(self, in_features: int, features: int, window: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.space = Unit(in_features, features, (1, window, window), (1, stride, stride), rngs=rngs)
        self.time = Unit(features, features, (window, 1, 1), (stride, 1, 1), rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        return self.time(self.space(x))


class Block(nnx.Module):
    """Four parallel branches whose channels are concatenated: `[B, T, H, W, C]` to `[B, T, H, W, features]`."""

    def __init__(self, in_features: int, widths: tuple[int, int, int, int, int, int], *, rngs: nnx.Rngs):
        point = partial(Unit, window=(1, 1, 1), rngs=rngs)
        self.branch_0 = point(in_features, widths[0])
        self.branch_1a = point(in_features, widths[1])
        self.branch_1b = Separable(widths[1], widths[2], 3, rngs=rngs)
        self.branch_2a = point(in_features, widths[3])
        self.branch_2b = Separable(widths[3], widths[4], 3, rngs=rngs)
        self.branch_3 = point(in_features, widths[5])
        self.features = widths[0] + widths[2] + widths[4] + widths[5]

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        branches = (
            self.branch_0(x),
            self.branch_1b(self.branch_1a(x)),
            self.branch_2b(self.branch_2a(x)),
            self.branch_3(max_pool(x, window=(3, 3, 3), strides=1, padding=((1, 1),) * 3)),
        )
        return jnp.concatenate(branches, axis=-1)


def _shrink(x: jax.Array) -> jax.Array:
    return max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))


class S3D(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]`, normalised; the published weights saw 224x224.

    T is 16 or more; smaller clips and frames pass too: the last pooling window, 2x7x7, shrinks to what is there.
    """

    feature_size = 1024

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        self.conv_1a = Separable(3, 64, 7, 2, rngs=rngs)
        self.conv_2b = Unit(64, 64, (1, 1, 1), rngs=rngs)
        self.conv_2c = Separable(64, 192, 3, rngs=rngs)
        features = 192
        for name, widths in BLOCKS.items():
            block = Block(features, widths, rngs=rngs)
            setattr(self, name, block)
            features = block.features
        self.pools = (2, 7, 7)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.logits = None if num_classes is None else Conv(features, num_classes, (1, 1, 1), rngs=rngs)

    def pooled(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        """`[B, T', H', W', 1024]`: what the last average pooling leaves; H' and W' are 1 for 224x224."""
        x = _shrink(self.conv_1a(x))
        x = _shrink(self.conv_2c(self.conv_2b(x)))
        for name in BLOCKS:
            if name == "mixed_4b":
                x = max_pool(x, window=(3, 3, 3), strides=2, padding=((1, 1),) * 3)
            elif name == "mixed_5b":
                x = max_pool(x, window=(2, 2, 2), strides=2, padding="VALID")
            x = getattr(self, name)(x)
        window = [min(size, there) for size, there in zip(self.pools, x.shape[1:4], strict=True)]
        return avg_pool(x, window=window, strides=1, padding="VALID")

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 1024"]:
        """`[B, 1024]`: the pooled activations before the classifier, averaged over time and space."""
        return self.pooled(x).mean(axis=(1, 2, 3))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`, averaged over time and space."""
        if self.logits is None:
            raise ValueError("this s3d was made without classes (num_classes=None); call features")
        return self.logits(self.dropout(self.pooled(x))).mean(axis=(1, 2, 3))


@register_model
def s3d(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> S3D:
    """S3D of 8.3M parameters; `num_classes` defaults to Kinetics-400, None leaves the classifier out."""
    return S3D(num_classes, rngs=rngs)
