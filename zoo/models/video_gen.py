"""A space-time U-Net that denoises clips: the network of the flow-matching generator.

Convolutions mix neighbours, in space and in time; at the coarsest levels attention runs over all of space-time at once
(compare Ho et al. 2022, "Video Diffusion Models", arXiv:2204.03458). Noise level and classes reach every block as a
scale and shift of its normalised activations.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.denoiser_pieces import (
    Attention,
    Condition,
    Modulation,
    Perceptron,
    check_sides,
    from_patches,
    places,
    to_patches,
)
from zoo.models.layers import Conv
from zoo.registry import register_model


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


class AttentionBlock(nnx.Module):
    """Attention over all of space-time, then a two-layer perceptron: `[B, T, H, W, C]` to the same."""

    def __init__(self, features: int, condition: int, *, rngs: nnx.Rngs):
        self.first = Modulation(features, condition, rngs=rngs)
        self.attention = Attention(features, 32, rngs=rngs)
        self.second = Modulation(features, condition, rngs=rngs)
        self.perceptron = Perceptron(features, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"], condition: Float[jax.Array, "batch condition"]
    ) -> Float[jax.Array, "batch time height width features"]:
        b, t, h, w, c = x.shape
        y = self.first(x, condition) + places((t, h, w), c).astype(x.dtype)
        x = x + self.attention(y.reshape(b, t * h * w, c)).reshape(x.shape)
        return x + self.perceptron(self.second(x, condition))


class VideoGen(nnx.Module):
    """The denoiser as a U-Net; called as `zoo.models.denoiser_pieces` says.

    The coarsest `attention_levels` have attention. H and W must divide by `patch * 2 ** (len(widths) - 1)`, and with
    `halve_time` T by the latter factor.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        patch: int,
        widths: Sequence[int],
        *,
        halve_time: bool,
        attention_levels: int,
        rngs: nnx.Rngs,
    ):
        self.patch, self.channels, self.num_classes = patch, channels, num_classes
        self.shrink = (2 if halve_time else 1, 2, 2)
        features = widths[-1]
        self.condition = Condition(num_classes, features, rngs=rngs)
        self.stem = Conv(channels * patch**2, widths[0], (3, 3), rngs=rngs)
        down, merge, up = [], [], []
        for i, width in enumerate(widths):
            below = widths[max(i - 1, 0)]
            is_coarse = i >= len(widths) - attention_levels
            mixing = [AttentionBlock(width, features, rngs=rngs) for _ in range(2)] if is_coarse else []
            down.append(nnx.List([ConvBlock(below, width, features, rngs=rngs), *mixing[:1]]))
            merge.append(nnx.Linear(2 * width, width, rngs=rngs))
            up.append(nnx.List([*mixing[1:], ConvBlock(width, below, features, rngs=rngs)]))
        self.down, self.merge, self.up = nnx.List(down), nnx.List(merge), nnx.List(up)
        self.last = Modulation(widths[0], features, rngs=rngs)
        self.head = Conv(widths[0], channels * patch**2, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.known_in = nnx.Linear(1, widths[0], use_bias=False, rngs=rngs)

    def __call__(
        self,
        x: Float[jax.Array, "batch time height width channels"],
        time: Float[jax.Array, "batch"],
        classes: Float[jax.Array, "batch classes"],
        known: Float[jax.Array, "batch time"],
    ) -> Float[jax.Array, "batch time height width channels"]:
        halvings = len(self.down) - 1
        check_sides(x.shape, frames=self.shrink[0] ** halvings, pixels=self.patch * 2**halvings)
        condition = self.condition(time, classes).astype(x.dtype)
        x = self.stem(to_patches(x, self.patch)) + self.known_in(known[..., None].astype(x.dtype))[:, :, None, None]
        kept = []
        for i, level in enumerate(self.down):
            if i > 0:
                x = self._shrunk(x)
            for block in level:
                x = block(x, condition)
            kept.append(x)
        for i, (level, merge, skip) in reversed(list(enumerate(zip(self.up, self.merge, kept, strict=True)))):
            x = merge(jnp.concatenate([x, skip], -1))
            for block in level:
                x = block(x, condition)
            if i > 0:
                for axis, factor in enumerate(self.shrink, 1):
                    x = jnp.repeat(x, factor, axis)
        return from_patches(self.head(nnx.silu(self.last(x, condition))), self.patch)

    def _shrunk(self, x: jax.Array) -> jax.Array:
        """The mean of each two rows and columns, and with `halve_time` frames."""
        b, t, h, w, c = x.shape
        frames, rows, columns = self.shrink
        return x.reshape(b, t // frames, frames, h // rows, rows, w // columns, columns, c).mean((2, 4, 6))


@register_model
def video_gen(
    *,
    channels: int = 1,
    num_classes: int = 10,
    patch: int = 4,
    widths: Sequence[int] = (128, 224),
    halve_time: bool = False,
    attention_levels: int = 1,
    rngs: nnx.Rngs,
) -> VideoGen:
    """The flow-matching generator's space-time U-Net; the defaults fit 8x32x32 clips of moving digits."""
    time = {"halve_time": halve_time, "attention_levels": attention_levels}
    return VideoGen(channels, num_classes, patch, tuple(widths), **time, rngs=rngs)
