"""The frame CNN of the introduction to deep learning for video: Conv32-pool-Conv64-pool-Conv128-pool-Dense."""

import itertools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, max_pool
from zoo.registry import register_model


class CNN2D(nnx.Module):
    """Three blocks of 3x3 convolution ("same"), ReLU and 2x2 max-pool, then one dense layer.

    Call with images `[B, H, W, channels]`, or a video `[B, T, H, W, channels]`, which is read frame by frame and its
    logits averaged over time; float in about [-1, 1], H = W = image_size. Returns logits `[B, num_classes]`.
    num_classes None leaves the dense layer out, for use as another network's frame CNN.
    """

    frame_feature_size = 128

    def __init__(self, num_classes: int | None, image_size: int, channels: int, *, rngs: nnx.Rngs):
        widths = (channels, 32, 64, self.frame_feature_size)
        self.convs = nnx.List([Conv(before, after, (3, 3), rngs=rngs) for before, after in itertools.pairwise(widths)])
        flat = (image_size // 8) ** 2 * self.frame_feature_size
        self.head = None if num_classes is None else nnx.Linear(flat, num_classes, rngs=rngs)

    def _feature_map(self, x: Float[Any, "..."]) -> jax.Array:
        for conv in self.convs:
            x = max_pool(jax.nn.relu(conv(x)), window=(2, 2))
        return x

    def frame_features(self, x: Float[Any, "*batch height width channels"]) -> Float[jax.Array, "*batch features"]:
        """`[..., H, W, channels]` to `[..., 128]`: the last feature map, averaged over space."""
        return self._feature_map(x).mean((-3, -2))

    def features(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch features"]:
        """`[B, T, H, W, channels]` to `[B, 128]`: frame features averaged over time."""
        return self.frame_features(x).mean(1)

    def __call__(self, x: Float[Any, "batch *time height width channels"]) -> Float[jax.Array, "batch classes"]:
        if self.head is None:
            raise ValueError("this cnn_2d was made without classes (num_classes=None); call frame_features")
        maps = self._feature_map(x)
        logits = self.head(maps.reshape(*maps.shape[:-3], -1))
        return logits.mean(1) if x.ndim == 5 else logits


@register_model
def cnn_2d(*, num_classes: int | None = 1000, image_size: int = 224, channels: int = 3, rngs: nnx.Rngs) -> CNN2D:
    """Conv32-pool-Conv64-pool-Conv128-pool-Dense1000 on 224x224x3."""
    return CNN2D(num_classes, image_size, channels, rngs=rngs)
