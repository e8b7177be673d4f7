"""A space-time U-Net that denoises clips: the network of the flow-matching generator.

Convolutions mix neighbours, in space and in time; at the coarsest level attention runs over all of space-time at once
(compare Ho et al. 2022, "Video Diffusion Models", arXiv:2204.03458). Noise level and classes reach every block as a
scale and shift of its normalised activations.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.registry import register_model


def sinusoids(position: jax.Array, features: int, longest: float) -> jax.Array:
    """Sines and cosines of `position [...]` at geometrically spaced periods up to `longest`: `[..., features]`."""
    frequencies = 2 * jnp.pi / longest ** jnp.linspace(0.2, 1, features // 2)
    angle = position[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class Modulation(nnx.Module):
    """RMS normalisation followed by a scale and shift told by the condition; starts as the plain normalisation."""

    def __init__(self, features: int, condition: int, *, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(features, rngs=rngs)
        self.project = nnx.Linear(condition, 2 * features, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"], condition: Float[jax.Array, "batch condition"]
    ) -> Float[jax.Array, "batch time height width features"]:
        """x `[B, T, H, W, C]`, condition `[B, D]`."""
        scale, shift = jnp.split(self.project(condition)[:, None, None, None], 2, -1)
        return self.norm(x) * (1 + scale) + shift


class ConvBlock(nnx.Module):
    """A 3x3 convolution in space and one of 3 in time, with a residual connection: `[B, T, H, W, C]` to `[..., F]`."""

    def __init__(self, in_features: int, features: int, condition: int, *, rngs: nnx.Rngs):
        self.first = Modulation(in_features, condition, rngs=rngs)
        self.conv_in = Conv(in_features, features, (3, 3), rngs=rngs)
        self.second = Modulation(features, condition, rngs=rngs)
        self.conv_out = Conv(features, features, (3, 1, 1), kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.shortcut = nnx.Linear(in_features, features, rngs=rngs) if in_features != features else None

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"], condition: Float[jax.Array, "batch condition"]
    ) -> Float[jax.Array, "batch time height width features"]:
        y = self.conv_in(nnx.silu(self.first(x, condition)))
        y = self.conv_out(nnx.silu(self.second(y, condition)))
        return (x if self.shortcut is None else self.shortcut(x)) + y


class Attention(nnx.Module):
    """Multi-head self-attention over the second last axis of `[..., tokens, C]`, queries and keys normalised."""

    def __init__(self, features: int, head_features: int, *, rngs: nnx.Rngs):
        self.head_features = head_features
        self.to_query_key_value = nnx.Linear(features, 3 * features, use_bias=False, rngs=rngs)
        self.query_norm = nnx.RMSNorm(head_features, rngs=rngs)
        self.key_norm = nnx.RMSNorm(head_features, rngs=rngs)
        self.out = nnx.Linear(features, features, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        heads = self.to_query_key_value(x).reshape(*x.shape[:-1], 3, -1, self.head_features)
        query, key, value = (heads[..., i, :, :] for i in range(3))
        mixed = jax.nn.dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        return self.out(mixed.reshape(x.shape))


class AttentionBlock(nnx.Module):
    """Attention over all of space-time, then a two-layer perceptron: `[B, T, H, W, C]` to the same."""

    def __init__(self, features: int, condition: int, *, rngs: nnx.Rngs):
        self.first = Modulation(features, condition, rngs=rngs)
        self.attention = Attention(features, 32, rngs=rngs)
        self.second = Modulation(features, condition, rngs=rngs)
        self.expand = nnx.Linear(features, 3 * features, rngs=rngs)
        self.contract = nnx.Linear(3 * features, features, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"], condition: Float[jax.Array, "batch condition"]
    ) -> Float[jax.Array, "batch time height width features"]:
        b, t, h, w, c = x.shape
        place = jnp.stack(jnp.meshgrid(*map(jnp.arange, (t, h, w)), indexing="ij"), -1).astype(jnp.float32)
        # A third of the channels, in whole sine-cosine pairs, for each of time, height and width.
        share = c // 6 * 2
        place = sinusoids(place, share, _LONGEST_PERIOD).reshape(t, h, w, 3 * share)
        y = self.first(x, condition) + jnp.pad(place, ((0, 0), (0, 0), (0, 0), (0, c - 3 * share)))
        x = x + self.attention(y.reshape(b, t * h * w, c)).reshape(x.shape)
        return x + self.contract(nnx.silu(self.expand(self.second(x, condition))))


# Periods from one position to 64: sine and cosine tell apart all positions of clips up to that long.
_LONGEST_PERIOD = 64.0


class VideoGen(nnx.Module):
    """Predicts the clean clip from a noisy one, its noise level and the classes it shows.

    Call with x `[B, T, H, W, channels]` float in about [-1, 1], time `[B]` in [0, 1] (0 noise, 1 data) and classes
    `[B, num_classes]` counts, all zero for "any"; returns the clean clip, shaped like x. H and W must divide by
    `patch * 2 ** (len(widths) - 1)`.
    """

    def __init__(self, channels: int, num_classes: int, patch: int, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.patch, self.channels, self.num_classes = patch, channels, num_classes
        condition = widths[-1]
        self.time_in = nnx.Linear(64, condition, rngs=rngs)
        self.time_out = nnx.Linear(condition, condition, rngs=rngs)
        self.class_in = nnx.Linear(num_classes, condition, use_bias=False, rngs=rngs)
        self.stem = Conv(channels * patch**2, widths[0], (3, 3), rngs=rngs)
        down, merge, up = [], [], []
        for i, features in enumerate(widths):
            below = widths[max(i - 1, 0)]
            coarsest = i == len(widths) - 1
            mixing = [AttentionBlock(features, condition, rngs=rngs) for _ in range(2)] if coarsest else []
            down.append(nnx.List([ConvBlock(below, features, condition, rngs=rngs), *mixing[:1]]))
            merge.append(nnx.Linear(2 * features, features, rngs=rngs))
            up.append(nnx.List([*mixing[1:], ConvBlock(features, below, condition, rngs=rngs)]))
        self.down, self.merge, self.up = nnx.List(down), nnx.List(merge), nnx.List(up)
        self.last = Modulation(widths[0], condition, rngs=rngs)
        self.head = Conv(widths[0], channels * patch**2, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self,
        x: Float[jax.Array, "batch time height width channels"],
        time: Float[jax.Array, "batch"],
        classes: Float[jax.Array, "batch classes"],
    ) -> Float[jax.Array, "batch time height width channels"]:
        condition = self.time_out(nnx.silu(self.time_in(sinusoids(time * 1000, 64, 10_000.0))))
        condition = nnx.silu(condition + self.class_in(classes))
        b, t, h, w, _ = x.shape
        x = x.reshape(b, t, h // self.patch, self.patch, w // self.patch, self.patch, self.channels)
        x = self.stem(x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h // self.patch, w // self.patch, -1))
        kept = []
        for i, level in enumerate(self.down):
            if i > 0:
                x = x.reshape(b, t, x.shape[2] // 2, 2, x.shape[3] // 2, 2, -1).mean((3, 5))
            for block in level:
                x = block(x, condition)
            kept.append(x)
        for i, (level, merge, skip) in reversed(list(enumerate(zip(self.up, self.merge, kept, strict=True)))):
            x = merge(jnp.concatenate([x, skip], -1))
            for block in level:
                x = block(x, condition)
            if i > 0:
                x = jnp.repeat(jnp.repeat(x, 2, 2), 2, 3)
        x = self.head(nnx.silu(self.last(x, condition)))
        x = x.reshape(b, t, h // self.patch, w // self.patch, self.patch, self.patch, self.channels)
        return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h, w, self.channels)


@register_model
def video_gen(
    *, channels: int = 1, num_classes: int = 10, patch: int = 4, widths: Sequence[int] = (128, 224), rngs: nnx.Rngs
) -> VideoGen:
    """The flow-matching generator's space-time U-Net; the defaults fit 8x32x32 clips of moving digits."""
    return VideoGen(channels, num_classes, patch, tuple(widths), rngs=rngs)
