"""MoveNet Lightning: seventeen joints of the person in the middle of an image.

Votel and Li 2021, "Next-generation pose detection with MoveNet and TensorFlow.js" (blog.tensorflow.org): CenterNet's
heads (arXiv:1904.07850) over MobileNetV2 (arXiv:1801.04381) and a pyramid of features (arXiv:1612.03144).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.models.mobile_pieces import Activation, Separable, Unit, bottlenecks, pointwise
from zoo.registry import register_model

JOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
STEM_FEATURES, TOP_FEATURES, HEAD_FEATURES = 32, 1280, 96

_PIXEL_SCALE = 0.007843017578125  # what the published graph has for 1 / 127.5: the nearest in half precision

_relu6: Activation = jax.nn.relu6

# Wide, window, features, strides, activation, squeezed: MobileNetV2.
BLOCKS = (
    (32, 3, 16, 1, _relu6, 0),
    (96, 3, 24, 2, _relu6, 0),
    (144, 3, 24, 1, _relu6, 0),
    (144, 3, 32, 2, _relu6, 0),
    *[(192, 3, 32, 1, _relu6, 0)] * 2,
    (192, 3, 64, 2, _relu6, 0),
    *[(384, 3, 64, 1, _relu6, 0)] * 3,
    (384, 3, 96, 1, _relu6, 0),
    *[(576, 3, 96, 1, _relu6, 0)] * 2,
    (576, 3, 160, 2, _relu6, 0),
    *[(960, 3, 160, 1, _relu6, 0)] * 2,
    (960, 3, 320, 1, _relu6, 0),
)
LEVELS = ((2, 24), (5, 32), (9, 64))  # the last block of a size, from the finest, and its features

HEADS = {"heat": len(JOINTS), "middle": 1, "reach": 2 * len(JOINTS), "offsets": 2 * len(JOINTS)}
"""What is told at every fourth pixel, with the number of answers: a logit for each joint; one for the middle of a
person; from there the way to each joint, down and right, in steps of four pixels; the rest of the way within a step."""


class Head(nnx.Module):
    """One of `HEADS`: `[..., H, W, C]` to `[..., H, W, answers]`."""

    def __init__(self, in_features: int, answers: int, *, rngs: nnx.Rngs):
        self.hidden = Separable(in_features, HEAD_FEATURES, 3, jax.nn.relu, batch_norm=False, rngs=rngs)
        self.out = Conv(HEAD_FEATURES, answers, (1, 1), rngs=rngs)

    def __call__(self, x: Float[Any, "..."]) -> jax.Array:
        return self.out(self.hidden(x))


class MoveNet(nnx.Module):
    """Maps of joints at every fourth pixel of images, whose sides are multiples of 32; made for 192x192."""

    def __init__(self, *, batch_norm: bool, rngs: nnx.Rngs):
        norm: dict[str, Any] = {"batch_norm": batch_norm, "rngs": rngs}
        stem = Conv(3, STEM_FEATURES, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.stem = Unit(stem, STEM_FEATURES, jax.nn.relu6, **norm)
        self.blocks = nnx.List(bottlenecks(STEM_FEATURES, BLOCKS, **norm))
        self.top = pointwise(BLOCKS[-1][2], TOP_FEATURES, jax.nn.relu6, **norm)
        self.laterals = nnx.List([Conv(features, features, (1, 1), rngs=rngs) for _, features in LEVELS])
        self.descent = Conv(TOP_FEATURES, LEVELS[-1][1], (1, 1), rngs=rngs)
        finer = (LEVELS[0][1], *(features for _, features in LEVELS[:-1]))
        self.merges = nnx.List(
            [
                Separable(features, after, 3, jax.nn.relu, **norm)
                for (_, features), after in zip(LEVELS, finer, strict=True)
            ]
        )
        self.heads = nnx.Dict({name: Head(finer[0], answers, rngs=rngs) for name, answers in HEADS.items()})

    def __call__(self, images: Float[Any, "*batch height width 3"]) -> Float[jax.Array, "*batch rows columns answers"]:
        """The answers of all `HEADS`, one after the other: `[..., H / 4, W / 4, 86]`.

        Args:
          images: RGB from 0 to 255, `[..., H, W, 3]`.
        """
        x, seen = self.stem(images * _PIXEL_SCALE - 1), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in dict(LEVELS):
                seen.append(x)
        x = self.descent(self.top(x))
        for lateral, merge, level in zip(self.laterals[::-1], self.merges[::-1], seen[::-1], strict=True):
            shape = (*x.shape[:-3], *level.shape[-3:-1], x.shape[-1])
            x = merge(jax.image.resize(x, shape, "bilinear") + lateral(level))
        return jnp.concatenate([self.heads[name](x) for name in HEADS], axis=-1)


@register_model
def movenet(*, batch_norm: bool = False, rngs: nnx.Rngs) -> MoveNet:
    """MoveNet Lightning of 2.3M parameters; `batch_norm=True` to train it from nothing."""
    return MoveNet(batch_norm=batch_norm, rngs=rngs)
