"""SimVP with gated spatiotemporal attention: convolutions alone turn the frames seen into the frames to come.

Gao et al. 2022, "SimVP: Simpler yet Better Video Prediction", arXiv:2206.05099, and Tan et al. 2022, "SimVPv2",
arXiv:2211.12509. Every frame is encoded by itself; a translator sees the features of all frames side by side, as
channels, and what it makes of them is decoded frame by frame.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.models.layers import Conv, DepthwiseConv
from zoo.models.roll_out import WindowPredictor, from_patches
from zoo.registry import register_model

_LAYER_SCALE = 1e-2  # what the blocks of the translator add is small at first


class ConvUnit(nnx.Module):
    """A 3x3 convolution, group normalisation and SiLU; the sides are halved or doubled on the way, or stay."""

    def __init__(self, in_features: int, features: int, *, halves: bool = False, doubles: bool = False, rngs: nnx.Rngs):
        self.doubles = doubles
        width = 4 * features if doubles else features
        # Padding as PyTorch's: even sides are halved around other pixels than with "SAME".
        padding = ((1, 1), (1, 1))
        self.conv = Conv(in_features, width, (3, 3), strides=2 if halves else 1, padding=padding, rngs=rngs)
        self.norm = nnx.GroupNorm(features, num_groups=2, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return nnx.silu(self.norm(from_patches(x, 2) if self.doubles else x))


class Depthwise(nnx.Module):
    """A depthwise convolution with bias, `[B, H, W, C]` to the same; dilated, it works on interleaved grids."""

    def __init__(self, features: int, side: int, dilation: int = 1, *, rngs: nnx.Rngs):
        self.conv = DepthwiseConv(features, (side, side), rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(features))
        self.dilation = dilation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self._dilated(x) + self.bias[...].astype(x.dtype)

    def _dilated(self, x: jax.Array) -> jax.Array:
        """Pixels `dilation` apart never meet those between: each of these grids is convolved plainly."""
        if self.dilation == 1:
            return self.conv(x)
        batch, height, width, features = x.shape
        apart = self.dilation
        x = jnp.pad(x, ((0, 0), (0, -height % apart), (0, -width % apart), (0, 0)))
        rows, columns = x.shape[1] // apart, x.shape[2] // apart
        grids = x.reshape(batch, rows, apart, columns, apart, features).transpose(0, 2, 4, 1, 3, 5)
        y = self.conv(grids).transpose(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return y[:, :height, :width]


class LargeKernel(nnx.Module):
    """As wide as a window of 21x21: one of 5x5, then one of 7x7 whose pixels are 3 apart."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.near = Depthwise(features, 5, rngs=rngs)
        self.far = Depthwise(features, 7, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.far(self.near(x))


class GatedAttention(nnx.Module):
    """What a large window sees, let through by a gate that sees the same: `[B, H, W, C]` to the same."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.window = LargeKernel(features, rngs=rngs)
        self.value_and_gate = nnx.Linear(features, 2 * features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.value_and_gate(self.window(x)), 2, axis=-1)
        return jax.nn.sigmoid(gate) * value


class Block(nnx.Module):
    """Attention, then a perceptron with a 3x3 window, each added to what it sees; then, if need be, another width."""

    def __init__(
        self,
        in_features: int,
        features: int,
        mlp_ratio: int,
        attention: Callable[..., nnx.Module],
        *,
        rngs: nnx.Rngs,
    ):
        wide = mlp_ratio * in_features
        self.attention_norm = nnx.BatchNorm(in_features, momentum=0.9, rngs=rngs)
        self.before = nnx.Linear(in_features, in_features, rngs=rngs)
        self.attention = attention(in_features, rngs=rngs)
        self.behind = nnx.Linear(in_features, in_features, rngs=rngs)
        self.mlp_norm = nnx.BatchNorm(in_features, momentum=0.9, rngs=rngs)
        self.expand = nnx.Linear(in_features, wide, rngs=rngs)
        self.window = Depthwise(wide, 3, rngs=rngs)
        self.contract = nnx.Linear(wide, in_features, rngs=rngs)
        self.attention_scale = nnx.Param(jnp.full(in_features, _LAYER_SCALE))
        self.mlp_scale = nnx.Param(jnp.full(in_features, _LAYER_SCALE))
        self.reduce = nnx.Linear(in_features, features, rngs=rngs) if features != in_features else None

    def __call__(self, x: jax.Array) -> jax.Array:
        seen = self.attention_norm(x)
        attended = seen + self.behind(self.attention(nnx.gelu(self.before(seen), approximate=False)))
        x = x + self.attention_scale[...].astype(x.dtype) * attended
        widened = nnx.gelu(self.window(self.expand(self.mlp_norm(x))), approximate=False)
        x = x + self.mlp_scale[...].astype(x.dtype) * self.contract(widened)
        return x if self.reduce is None else self.reduce(x)


class SimVP(WindowPredictor):
    """An encoder of frames, a translator of all frames at once, and a decoder that also sees the encoder's start."""

    def __init__(
        self,
        channels: int,
        frames: int,
        spatial_features: int,
        temporal_features: int,
        num_blocks: int,
        halvings: int,
        mlp_ratio: int,
        attention: Callable[..., nnx.Module],
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(frames, 2**halvings, channels)
        features, side_by_side = spatial_features, frames * spatial_features
        below = [channels, *[features] * (2 * halvings - 1)]
        # Of two units one changes the sides: the second on the way in, the first on the way out.
        self.encoder = nnx.List(
            [ConvUnit(width, features, halves=number % 2 == 1, rngs=rngs) for number, width in enumerate(below)]
        )
        self.decoder = nnx.List(
            [ConvUnit(features, features, doubles=number % 2 == 0, rngs=rngs) for number in range(2 * halvings)]
        )
        widths = [side_by_side, *[temporal_features] * (num_blocks - 1), side_by_side]
        self.translator = nnx.List(
            [Block(*pair, mlp_ratio, attention, rngs=rngs) for pair in itertools.pairwise(widths)]
        )
        self.head = nnx.Linear(features, channels, rngs=rngs)

    def window(self, frames: jax.Array) -> jax.Array:
        batch, time = frames.shape[:2]
        first = x = self.encoder[0](frames.reshape(batch * time, *frames.shape[2:]))
        for unit in self.encoder[1:]:
            x = unit(x)
        _, rows, columns, features = x.shape
        x = jnp.moveaxis(x.reshape(batch, time, rows, columns, features), 1, 3).reshape(batch, rows, columns, -1)
        for block in self.translator:
            x = block(x)
        x = jnp.moveaxis(x.reshape(batch, rows, columns, time, features), 3, 1).reshape(-1, rows, columns, features)
        for unit in self.decoder[:-1]:
            x = unit(x)
        return self.head(self.decoder[-1](x + first)).reshape(frames.shape)


@register_model
def simvp(
    *,
    channels: int = 1,
    frames: int = 10,
    spatial_features: int = 64,
    temporal_features: int = 512,
    num_blocks: int = 8,
    halvings: int = 2,
    mlp_ratio: int = 8,
    rngs: nnx.Rngs,
) -> SimVP:
    """A frame predictor; the defaults are those of OpenSTL's SimVP with gSTA on Moving MNIST.

    Args:
      frames: how many it sees, and gives, at once.
      halvings: how often the encoder halves the sides.
      mlp_ratio: the perceptrons' width in that of their block.
    """
    sizes = (spatial_features, temporal_features, num_blocks, halvings, mlp_ratio)
    return SimVP(channels, frames, *sizes, GatedAttention, rngs=rngs)
