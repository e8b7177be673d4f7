"""TransNet V2: which frames of a film are the last ones before a new shot.

Souček and Lokoč 2020, "TransNet V2: An effective deep network architecture for fast shot transition detection",
arXiv:2008.04838, in the form in which it is published: dilated 3D convolutions over tiny frames, beside them how much
each frame resembles its neighbours, once by learned features and once by colour histograms.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Num

from zoo.models.layers import Conv, avg_pool
from zoo.registry import register_model

FRAME_HEIGHT, FRAME_WIDTH = 27, 48
FILTERS = (16, 32, 64)  # of each of the four dilations, a stack of two blocks each
DILATIONS = (1, 2, 4, 8)
NEIGHBOURS = 50  # frames before and after that a frame is compared with
SIMILARITY_FEATURES, HIDDEN_FEATURES = 128, 1024
DROPOUT = 0.5

_BINS = 512  # of a colour histogram: the upper three bits of red, green and blue


class DilatedBlock(nnx.Module):
    """3x3 in space, then 3 in time at four dilations side by side: `[B, T, H, W, C]` to `[B, T, H, W, 4 F]`."""

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        # The paper has a spatial convolution for each dilation; they read the same input, so here they are one.
        self.spatial = Conv(in_features, 8 * features, (3, 3), use_bias=False, rngs=rngs)
        # Height and width are one axis to these, so that they are 2D convolutions, which every platform is good at.
        self.temporal = nnx.List(
            [Conv(2 * features, features, (3, 1), dilation=(d, 1), use_bias=False, rngs=rngs) for d in DILATIONS]
        )
        self.norm = nnx.BatchNorm(4 * features, epsilon=1e-3, momentum=0.9, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        batch, time, height, width, _ = x.shape
        parts = jnp.split(self.spatial(x).reshape(batch, time, height * width, -1), len(DILATIONS), axis=-1)
        y = jnp.concatenate([conv(part) for conv, part in zip(self.temporal, parts, strict=True)], axis=-1)
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(y).astype(x.dtype).reshape(batch, time, height, width, -1)


class Stack(nnx.Module):
    """Two blocks, the first one's result added to the second's, and a 2x2 average: H and W are halved, rounded down."""

    def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
        self.first = DilatedBlock(in_features, features, rngs=rngs)
        self.second = DilatedBlock(4 * features, features, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        shortcut = jax.nn.relu(self.first(x))
        x = jax.nn.relu(self.second(shortcut)) + shortcut
        return avg_pool(x, window=(2, 2), strides=(2, 2), padding="VALID")


class Similarity(nnx.Module):
    """What a frame's likeness to its neighbours tells: unit vectors `[B, T, C]` to `[B, T, 128]`."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(2 * NEIGHBOURS + 1, SIMILARITY_FEATURES, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time channels"]) -> jax.Array:
        # Histograms are whole numbers up to 1296, which a TPU's default precision would round.
        cosines = jnp.einsum("bsc,btc->bst", x, x, precision=jax.lax.Precision.HIGHEST)
        cosines = jnp.pad(cosines, ((0, 0), (0, 0), (NEIGHBOURS, NEIGHBOURS)))
        time = jnp.arange(x.shape[1])[:, None]
        band = jnp.take_along_axis(cosines, (time + jnp.arange(2 * NEIGHBOURS + 1))[None], axis=2)
        return jax.nn.relu(self.dense(band))


class TransNetV2(nnx.Module):
    """Logits of frames 27 pixels high and 48 wide; made for windows of 100 frames, whose first and last 25 see less."""

    def __init__(self, *, rngs: nnx.Rngs):
        before = (3, *(4 * filters for filters in FILTERS))
        self.stacks = nnx.List([Stack(a, f, rngs=rngs) for a, f in zip(before, FILTERS, strict=False)])
        self.projection = nnx.Linear(sum(before[1:]), SIMILARITY_FEATURES, rngs=rngs)
        self.similarity, self.colours = Similarity(rngs=rngs), Similarity(rngs=rngs)
        pixels = (FRAME_HEIGHT >> len(FILTERS)) * (FRAME_WIDTH >> len(FILTERS))
        self.hidden = nnx.Linear(2 * SIMILARITY_FEATURES + pixels * before[-1], HIDDEN_FEATURES, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.one = nnx.Linear(HIDDEN_FEATURES, 1, rngs=rngs)
        self.all = nnx.Linear(HIDDEN_FEATURES, 1, rngs=rngs)

    def both(
        self, frames: Num[Any, "batch time 27 48 3"]
    ) -> tuple[Float[jax.Array, "batch time"], Float[jax.Array, "batch time"]]:
        """Two logits of each frame: that it is the one at the middle of a transition, and that it is within one."""
        frames, dtype = jnp.asarray(frames), self.hidden.kernel[...].dtype
        x = frames.astype(dtype) / 255
        means = []
        for stack in self.stacks:
            x = stack(x)
            means.append(x.mean(axis=(2, 3)))
        projected = self.projection(jnp.concatenate(means, axis=-1))
        features = (
            self.colours(_unit(_histograms(frames).astype(dtype))),
            self.similarity(_unit(projected)),
            x.reshape(*x.shape[:2], -1),
        )
        hidden = self.dropout(jax.nn.relu(self.hidden(jnp.concatenate(features, axis=-1))))
        return self.one(hidden)[..., 0], self.all(hidden)[..., 0]

    def __call__(self, frames: Num[Any, "batch time 27 48 3"]) -> Float[jax.Array, "batch time"]:
        """The logit of each frame that a shot ends with it.

        Args:
          frames: pixels from 0 to 255, uint8 `[B, T, 27, 48, 3]`.
        """
        return self.both(frames)[0]


def _histograms(frames: jax.Array) -> jax.Array:
    """How many pixels of each frame have each of 512 colours: int `[B, T, 512]` of `[B, T, H, W, 3]`."""
    red, green, blue = jnp.moveaxis(frames.astype(jnp.int32) >> 5, -1, 0)
    colours = ((red << 6) + (green << 3) + blue).reshape(-1, frames.shape[2] * frames.shape[3])
    counts = jax.vmap(lambda colours: jnp.zeros(_BINS, jnp.int32).at[colours].add(1))(colours)
    return counts.reshape(*frames.shape[:2], _BINS)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@register_model
def transnetv2(*, rngs: nnx.Rngs) -> TransNetV2:
    """TransNet V2 of 7.6M parameters, for frames of 27x48."""
    return TransNetV2(rngs=rngs)
