"""Inception-I3D: the Inception-v1 image network with every filter and window inflated into time.

Carreira and Zisserman 2017, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", arXiv:1705.07750.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.inception import BLOCKS, Inception, Unit
from zoo.models.layers import Conv, avg_pool, max_pool
from zoo.registry import register_model


class I3D(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]` in [-1, 1]; made for 224x224 and any T from 9 up.

    Smaller clips pass too: the last pooling window, 2x7x7, shrinks to what is there. Larger frames are averaged.
    """

    feature_size = 1024

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        self.mixed_3b: Inception
        self.mixed_3c: Inception
        self.mixed_5b: Inception
        self.mixed_5c: Inception
        self.conv_1a = Unit(3, 64, 7, axes=3, strides=2, rngs=rngs)
        self.conv_2b = Unit(64, 64, 1, axes=3, rngs=rngs)
        self.conv_2c = Unit(64, 192, 3, axes=3, rngs=rngs)
        features = 192
        for name, widths in BLOCKS.items():
            block = Inception(features, widths, axes=3, rngs=rngs)
            setattr(self, name, block)
            features = block.features
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.logits = None if num_classes is None else Conv(features, num_classes, (1, 1, 1), rngs=rngs)

    def lower(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        """`[B, T / 8, H / 32, W / 32, 832]`: what the last two blocks see; nearly all of the work."""
        x = self.conv_1a(x)
        x = max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding="SAME")
        x = self.conv_2c(self.conv_2b(x))
        x = max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding="SAME")
        x = self.mixed_3c(self.mixed_3b(x))
        x = max_pool(x, window=(3, 3, 3), strides=2, padding="SAME")
        for name in ("mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f"):
            x = getattr(self, name)(x)
        return max_pool(x, window=(2, 2, 2), strides=2, padding="SAME")

    def pooled(self, x: Float[Any, "batch time height width 3"]) -> jax.Array:
        """`[B, T', H', W', 1024]`: what the last average pooling leaves; H' and W' are 1 for 224x224."""
        x = self.mixed_5c(self.mixed_5b(self.lower(x)))
        window = [min(size, there) for size, there in zip((2, 7, 7), x.shape[1:4], strict=True)]
        return avg_pool(x, window=window, strides=1)

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 1024"]:
        """`[B, 1024]`: the pooled activations before the classifier, averaged over time, for clips as in the call."""
        return self.pooled(x).mean(axis=(1, 2, 3))

    def classify(self, x: Float[jax.Array, "*batch 1024"]) -> Float[jax.Array, "*batch classes"]:
        """Logits of pooled activations."""
        if self.logits is None:
            raise ValueError("this i3d was made without classes (num_classes=None); call features")
        return self.logits(x[..., None, None, None, :])[..., 0, 0, 0, :]

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`, averaged over time as in the original; FVD takes these as its features."""
        return self.classify(self.dropout(self.pooled(x))).mean(axis=(1, 2, 3))


@register_model
def i3d(*, num_classes: int | None = 400, rngs: nnx.Rngs) -> I3D:
    """I3D of 12.7M parameters for RGB clips; `num_classes` defaults to Kinetics-400."""
    return I3D(num_classes, rngs=rngs)
