"""Inception-v1, the image network that I3D inflates, in units that serve both: I3D's kernels summed over time fit here.

Szegedy et al. 2015, "Going Deeper with Convolutions", arXiv:1409.4842, with batch normalisation (Ioffe and Szegedy
2015, arXiv:1502.03167).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, max_pool
from zoo.registry import register_model

# Name and branch widths of the nine blocks: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1.
BLOCKS = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class Unit(nnx.Module):
    """Convolution, batch normalisation with bias and no scale, ReLU: `[..., *spatial, C]` to `[..., *spatial', F]`.

    The window is as wide along each of its `axes`, 2 or 3.
    """

    def __init__(self, in_features: int, features: int, window: int, *, axes: int, strides: int = 1, rngs: nnx.Rngs):
        self.conv = Conv(in_features, features, (window,) * axes, strides=strides, use_bias=False, rngs=rngs)
        # epsilon is I3D's (Sonnet 1). Its momentum, 0.999, would need thousands of steps to follow new data.
        self.norm = nnx.BatchNorm(features, use_scale=False, epsilon=1e-3, momentum=0.99, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return nnx.relu(self.norm(self.conv(x))).astype(x.dtype)


class Inception(nnx.Module):
    """Four parallel branches whose channels are concatenated: `[..., *spatial, C]` to `[..., *spatial, features]`."""

    def __init__(self, in_features: int, widths: tuple[int, int, int, int, int, int], *, axes: int, rngs: nnx.Rngs):
        unit = partial(Unit, axes=axes, rngs=rngs)
        self.branch_0 = unit(in_features, widths[0], 1)
        self.branch_1a = unit(in_features, widths[1], 1)
        self.branch_1b = unit(widths[1], widths[2], 3)
        self.branch_2a = unit(in_features, widths[3], 1)
        self.branch_2b = unit(widths[3], widths[4], 3)
        self.branch_3 = unit(in_features, widths[5], 1)
        self.axes = axes
        self.features = widths[0] + widths[2] + widths[4] + widths[5]

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        branches = (
            self.branch_0(x),
            self.branch_1b(self.branch_1a(x)),
            self.branch_2b(self.branch_2a(x)),
            self.branch_3(max_pool(x, window=(3,) * self.axes, strides=1, padding="SAME")),
        )
        return jnp.concatenate(branches, axis=-1)


class InceptionV1(nnx.Module):
    """Logits and features of images `[B, H, W, 3]` or video `[B, T, H, W, 3]` in [-1, 1]; made for 224x224."""

    frame_feature_size = 1024

    def __init__(self, num_classes: int | None, *, rngs: nnx.Rngs):
        self.conv_1a = Unit(3, 64, 7, axes=2, strides=2, rngs=rngs)
        self.conv_2b = Unit(64, 64, 1, axes=2, rngs=rngs)
        self.conv_2c = Unit(64, 192, 3, axes=2, rngs=rngs)
        features = 192
        for name, widths in BLOCKS.items():
            block = Inception(features, widths, axes=2, rngs=rngs)
            setattr(self, name, block)
            features = block.features
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.logits = None if num_classes is None else nnx.Linear(features, num_classes, rngs=rngs)

    def maps(self, x: Float[Any, "*batch height width 3"]) -> jax.Array:
        """`[..., H / 32, W / 32, 1024]`: the last activations."""
        x = self.conv_1a(x)
        x = max_pool(x, window=(3, 3), strides=2, padding="SAME")
        x = self.conv_2c(self.conv_2b(x))
        x = max_pool(x, window=(3, 3), strides=2, padding="SAME")
        for name in BLOCKS:
            if name == "mixed_4b":
                x = max_pool(x, window=(3, 3), strides=2, padding="SAME")
            elif name == "mixed_5b":
                x = max_pool(x, window=(2, 2), strides=2, padding="SAME")
            x = getattr(self, name)(x)
        return x

    def frame_features(self, x: Float[Any, "*batch height width 3"]) -> Float[jax.Array, "*batch 1024"]:
        """The last activations, averaged over the image."""
        return self.maps(x).mean(axis=(-3, -2))

    def features(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch 1024"]:
        """Features of images, or of video, averaged over its frames."""
        frames = self.frame_features(x)
        return frames.mean(axis=1) if x.ndim == 5 else frames

    def classify(self, features: Float[jax.Array, "*batch 1024"]) -> Float[jax.Array, "*batch classes"]:
        """Logits of features."""
        if self.logits is None:
            raise ValueError("this inception_v1 was made without classes (num_classes=None); call frame_features")
        return self.logits(self.dropout(features))

    def __call__(self, x: Float[Any, "batch *time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]` of what `features` takes."""
        return self.classify(self.features(x))


@register_model
def inception_v1(*, num_classes: int | None = 1000, rngs: nnx.Rngs) -> InceptionV1:
    """Inception-v1 with batch normalisation; `num_classes` defaults to ImageNet's, None leaves the classifier out."""
    return InceptionV1(num_classes, rngs=rngs)
