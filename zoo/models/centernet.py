"""CenterNet over MobileNetV3: objects as points with a size, for images on phones.

Zhou et al. 2019, "Objects as Points", arXiv:1904.07850; Howard et al. 2019, "Searching for MobileNetV3",
arXiv:1905.02244; in the form of github.com/610265158/mobilenetv3_centernet, whose head climbs from the deepest features
to a quarter of the image's size, and tells of each object four distances from a point to its sides.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.models.mobile_pieces import (
    Activation,
    Separable,
    SqueezeExcite,
    Unit,
    bottlenecks,
    hard_swish,
    pointwise,
)
from zoo.registry import register_model

STRIDE = 4  # pixels of the image from one answer to the next
DISTANCE_SCALE = 16.0  # pixels that a distance of one stands for
STEM_FEATURES, TOP_FEATURES = 16, 480
PRIOR = 0.01  # the share of places taken for an object before any training, arXiv:1708.02002

_relu: Activation = jax.nn.relu

# Wide, window, features, strides, activation, squeezed: MobileNetV3-Large as its authors' code rounds it, with the
# squeezed features of a width of a quarter.
BLOCKS = (
    (16, 3, 16, 1, _relu, 0),
    (64, 3, 24, 2, _relu, 0),
    (72, 3, 24, 1, _relu, 0),
    (72, 5, 32, 2, _relu, 24),
    (96, 5, 32, 1, _relu, 24),
    (96, 5, 32, 1, _relu, 24),
    (192, 3, 64, 2, hard_swish, 0),
    (160, 3, 64, 1, hard_swish, 0),
    (144, 3, 64, 1, hard_swish, 0),
    (144, 3, 64, 1, hard_swish, 0),
    (384, 3, 88, 1, hard_swish, 96),
    (528, 3, 88, 1, hard_swish, 136),
    (528, 5, 120, 2, hard_swish, 136),
    (720, 5, 120, 1, hard_swish, 184),
    (720, 5, 120, 1, hard_swish, 184),
)

# Features of each level from the finest: taken from the backbone (and squeezed to a quarter on the way), and climbing.
LEVELS = ((72, 64), (96, 96), (88, 128))


class Lateral(nnx.Module):
    """What a level of the backbone adds to the head: `[..., H, W, C]` to `[..., H, W, F]`."""

    def __init__(self, in_features: int, features: int, *, batch_norm: bool, rngs: nnx.Rngs):
        quarter = in_features // 4
        self.squeeze = pointwise(in_features, quarter, jax.nn.relu, batch_norm=batch_norm, rngs=rngs)
        self.filter = Separable(quarter, features, 5, batch_norm=batch_norm, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        return self.filter(self.squeeze(x))


class Climb(nnx.Module):
    """Two separable convolutions added up, at twice the size: `[..., H, W, C]` to `[..., 2 H, 2 W, F]`."""

    def __init__(self, in_features: int, features: int, *, batch_norm: bool, rngs: nnx.Rngs):
        self.near = Separable(in_features, features, 3, batch_norm=batch_norm, rngs=rngs)
        self.far = Separable(in_features, features, 5, batch_norm=batch_norm, rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        return doubled(self.near(x) + self.far(x))


class CenterNet(nnx.Module):
    """Class logits and distances at every fourth pixel of images, whose sides are multiples of 32."""

    def __init__(self, num_classes: int, *, batch_norm: bool, rngs: nnx.Rngs):
        norm: dict[str, Any] = {"batch_norm": batch_norm, "rngs": rngs}
        stem = Conv(3, STEM_FEATURES, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.stem = Unit(stem, STEM_FEATURES, hard_swish, **norm)
        self.blocks = nnx.List(bottlenecks(STEM_FEATURES, BLOCKS, **norm))
        self.top = pointwise(BLOCKS[-1][2], TOP_FEATURES, hard_swish, **norm)
        self.laterals = nnx.List([Lateral(before, features, **norm) for before, features in LEVELS])
        above = (*(2 * features for _, features in LEVELS[1:]), TOP_FEATURES)
        self.climbs = nnx.List(
            [Climb(before, features, **norm) for before, (_, features) in zip(above, LEVELS, strict=True)]
        )
        merged = 2 * LEVELS[0][1]
        self.squeeze_excite = SqueezeExcite(merged, merged // 4, jax.nn.sigmoid, use_bias=False, rngs=rngs)
        self.classes = Separable(merged, num_classes, 3, batch_norm=False, rngs=rngs)
        self.distances = Separable(merged, 4, 3, batch_norm=False, rngs=rngs)
        self.classes.pointwise.bias = nnx.Param(jnp.full(num_classes, jnp.log(PRIOR / (1 - PRIOR))))

    def __call__(self, images: Float[Any, "*batch height width 3"]) -> Float[jax.Array, "*batch rows columns answers"]:
        """What stands at every fourth pixel.

        Args:
          images: RGB from 0 to 255, `[..., H, W, 3]`.

        Returns:
          `[..., H / 4, W / 4, num_classes + 4]`: a logit for each class, then the distances in pixels of `images` to
          the left, upper, right and lower side of the object that has its middle here.
        """
        x, seen = self.stem(images), {}
        for index, block in enumerate(self.blocks):
            seen[index] = block.widen(x)
            x = block.narrow(x, seen[index])
            if index == 11:
                last_of_sixteenth = x
        levels = (seen[3], seen[5], last_of_sixteenth)  # at a 4th, 8th and 16th of the image's size
        x = self.top(x)
        for lateral, climb, level in zip(self.laterals[::-1], self.climbs[::-1], levels[::-1], strict=True):
            x = jax.nn.relu(jnp.concatenate([lateral(level), climb(x)], axis=-1))
        x = self.squeeze_excite(x)
        return jnp.concatenate([self.classes(x), DISTANCE_SCALE * self.distances(x)], axis=-1)


def doubled(x: Float[Any, "*batch height width channels"]) -> jax.Array:
    """Each pixel, then its mean with the next one, along both axes; the last one stays: TensorFlow 1's bilinear."""
    for axis in (-3, -2):
        count = x.shape[axis]
        following = jnp.concatenate(
            [jax.lax.slice_in_dim(x, 1, count, axis=axis), jax.lax.slice_in_dim(x, count - 1, count, axis=axis)], axis
        )
        stacked = jnp.stack([x, (x + following) / 2], axis=axis)
        x = stacked.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
    return x


@register_model
def centernet(*, num_classes: int = 80, batch_norm: bool = False, rngs: nnx.Rngs) -> CenterNet:
    """CenterNet-MobileNetV3 of 2.0M parameters; `num_classes` defaults to COCO.

    `batch_norm=True` to train it from nothing; the published weights have theirs multiplied into the kernels.
    """
    return CenterNet(num_classes, batch_norm=batch_norm, rngs=rngs)
