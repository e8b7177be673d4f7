"""The frame CNN of the introduction to deep learning for video: Conv32-pool-Conv64-pool-Conv128-pool-Dense."""

import itertools

import jax
from flax import nnx

from zoo.models.layers import Conv, max_pool
from zoo.registry import register_model


class CNN2D(nnx.Module):
    """Three blocks of 3x3 convolution ("same"), ReLU and 2x2 max-pool, then one dense layer.

    Call with images `[B, H, W, 3]`, or a video `[B, T, H, W, 3]`, which is read frame by frame and its logits averaged
    over time; float in about [-1, 1], H = W = image_size. Returns logits `[B, num_classes]`.
    """

    def __init__(self, num_classes: int, image_size: int, channels: int, *, rngs: nnx.Rngs):
        widths = (channels, 32, 64, 128)
        self.convs = nnx.List([Conv(before, after, (3, 3), rngs=rngs) for before, after in itertools.pairwise(widths)])
        self.frame_feature_size = (image_size // 8) ** 2 * widths[-1]
        self.head = nnx.Linear(self.frame_feature_size, num_classes, rngs=rngs)

    def frame_features(self, x: jax.Array) -> jax.Array:
        """`[..., H, W, channels]` to `[..., frame_feature_size]`, flattened in the order height, width, channels."""
        for conv in self.convs:
            x = max_pool(jax.nn.relu(conv(x)), window=(2, 2))
        return x.reshape(*x.shape[:-3], -1)

    def features(self, x: jax.Array) -> jax.Array:
        """`[B, T, H, W, channels]` to `[B, frame_feature_size]`, the mean over time."""
        return self.frame_features(x).mean(1)

    def __call__(self, x: jax.Array) -> jax.Array:
        logits = self.head(self.frame_features(x))
        return logits.mean(1) if x.ndim == 5 else logits


@register_model
def cnn_2d(*, num_classes: int = 1000, image_size: int = 224, channels: int = 3, rngs: nnx.Rngs) -> CNN2D:
    """Conv32-pool-Conv64-pool-Conv128-pool-Dense1000 on 224x224x3."""
    return CNN2D(num_classes, image_size, channels, rngs=rngs)
