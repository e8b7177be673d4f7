"""The frame CNN of the introduction to deep learning for video: Conv32-pool-Conv64-pool-Conv128-pool-Dense."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, max_pool
from zoo.registry import register_model

_WIDTHS = (32, 64, 128)
_GRID = 4  # cells a side that frame features tell apart: where something is, and so where it goes


class CNN2D(nnx.Module):
    """Three blocks of 3x3 convolution ("same"), ReLU and 2x2 max-pool, then one dense layer.

    Call with images `[B, H, W, channels]`, or a video `[B, T, H, W, channels]`, which is read frame by frame and its
    logits averaged over time; float in about [-1, 1], H = W = image_size. Returns logits `[B, num_classes]`.
    num_classes None leaves the dense layer out, for use as another network's frame CNN.

    Attributes:
      frame_feature_size: what `frame_features` gives of a frame: 2048, less for images below 32 pixels.
    """

    def __init__(self, num_classes: int | None, image_size: int, channels: int, *, rngs: nnx.Rngs):
        widths = (channels, *_WIDTHS)
        self.convs = nnx.List([Conv(before, after, (3, 3), rngs=rngs) for before, after in itertools.pairwise(widths)])
        side = image_size // 8
        self.grid = min(side, _GRID)
        self.frame_feature_size = self.grid**2 * _WIDTHS[-1]
        self.head = None if num_classes is None else nnx.Linear(side**2 * _WIDTHS[-1], num_classes, rngs=rngs)

    def _feature_map(self, x: Float[Any, "..."]) -> jax.Array:
        for conv in self.convs:
            x = max_pool(jax.nn.relu(conv(x)), window=(2, 2))
        return x

    def frame_features(self, x: Float[Any, "*batch height width channels"]) -> Float[jax.Array, "*batch features"]:
        """The last feature map, averaged over each cell of a grid of 4x4, cell by cell."""
        maps = self._feature_map(x)
        rows, columns = (jnp.asarray(_cells(size, self.grid), x.dtype) for size in maps.shape[-3:-1])
        cells = jnp.einsum("yh,xw,...hwc->...yxc", rows, columns, maps)
        return cells.reshape(*cells.shape[:-3], -1)

    def features(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch features"]:
        """Of video `[B, T, H, W, channels]`: frame features averaged over time."""
        return self.frame_features(x).mean(1)

    def __call__(self, x: Float[Any, "batch *time height width channels"]) -> Float[jax.Array, "batch classes"]:
        if self.head is None:
            raise ValueError("this cnn_2d was made without classes (num_classes=None); call frame_features")
        maps = self._feature_map(x)
        logits = self.head(maps.reshape(*maps.shape[:-3], -1))
        return logits.mean(1) if x.ndim == 5 else logits


def _cells(size: int, count: int) -> tuple[tuple[float, ...], ...]:
    """Weights `[count][size]` that average `size` pixels in `count` cells; cells share a pixel where they have to."""
    ends = [(cell * size // count, -(-(cell + 1) * size // count)) for cell in range(count)]
    return tuple(tuple((start <= pixel < end) / (end - start) for pixel in range(size)) for start, end in ends)


@register_model
def cnn_2d(*, num_classes: int | None = 1000, image_size: int = 224, channels: int = 3, rngs: nnx.Rngs) -> CNN2D:
    """Conv32-pool-Conv64-pool-Conv128-pool-Dense1000 on 224x224x3."""
    return CNN2D(num_classes, image_size, channels, rngs=rngs)
