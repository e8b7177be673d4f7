"""A small causal autoencoder of clips: 3D convolutions that see no frame later than the one they tell of.

A variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114) whose convolutions are padded with the past alone,
so that clips of any length are coded alike and the beginning of a clip has the latents that it has by itself (compare
Yu et al. 2023, "MAGVIT-v2", arXiv:2310.05737).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.denoiser_pieces import check_sides, from_patches, to_patches
from zoo.models.layers import Conv
from zoo.registry import register_model


def causal_conv(in_features: int, features: int, *, strides: Sequence[int] = (1, 1, 1), rngs: nnx.Rngs) -> Conv:
    """A window of 3x3x3 `[B, T, H, W, C]` to `[B, T / s, H / s, W / s, F]`, s of each axis 1 or 2.

    Of each s frames it gives one, which sees these and the ones before them.
    """
    time, *space = strides
    padding = ((3 - time, 0), *((1, 1) if stride == 1 else (1, 0) for stride in space))
    return Conv(in_features, features, (3, 3, 3), strides=strides, padding=padding, rngs=rngs)


class CausalBlock(nnx.Module):
    """Two causal convolutions beside a residual connection: `[B, T, H, W, C]` to the same."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        # Of channels alone: a mean over frames would tell of later ones.
        self.norms = nnx.List(nnx.RMSNorm(features, rngs=rngs) for _ in range(2))
        self.convs = nnx.List(causal_conv(features, features, rngs=rngs) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(nnx.silu(norm(y)))
        return x + y


class VideoVAE(nnx.Module):
    """Codes clips; called with one it gives its reconstruction.

    A clip is x `[B, T, H, W, channels]` float in [-1, 1], its latents `[B, T / shrink[0], H / shrink[1],
    W / shrink[2], latent_channels]`.

    Attributes:
      shrink: by what T, H and W must divide: 2 for each level but the first, T for those of the coarsest alone, so
        that no more than two frames share their latents; H and W by `patch`, whose squares are channels of the first
        level, as well.
    """

    def __init__(self, channels: int, latent_channels: int, patch: int, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.channels, self.latent_channels, self.patch = channels, latent_channels, patch
        self.shrink = (2, patch * 2 ** (len(widths) - 1), patch * 2 ** (len(widths) - 1))
        self.strides = ((1, 1, 1), *[(1, 2, 2)] * (len(widths) - 2), (2, 2, 2))
        below = [channels * patch**2, *widths]
        self.down = nnx.List(
            nnx.List([causal_conv(under, width, strides=strides, rngs=rngs), CausalBlock(width, rngs=rngs)])
            for under, width, strides in zip(below, widths, self.strides, strict=False)
        )
        self.to_latents = nnx.Linear(widths[-1], 2 * latent_channels, rngs=rngs)
        self.from_latents = nnx.Linear(latent_channels, widths[-1], rngs=rngs)
        # What is drawn has no activation, and the first level's width.
        above = [widths[0], *widths]
        self.up = nnx.List(
            nnx.List([CausalBlock(width, rngs=rngs), causal_conv(width, under, rngs=rngs)])
            for under, width in zip(above, widths, strict=False)
        )
        self.head = nnx.Linear(widths[0], channels * patch**2, rngs=rngs)

    def encode(self, x: Float[jax.Array, "batch time height width channels"]) -> tuple[jax.Array, jax.Array]:
        """The latents' means and log variances.

        Raises:
          UserError: a side does not divide by `shrink`.
        """
        check_sides(x.shape, frames=self.shrink[0], pixels=self.shrink[1])
        x = to_patches(x, self.patch)
        for conv, block in self.down:
            x = block(conv(x))
        mean, log_variance = jnp.split(self.to_latents(x), 2, axis=-1)
        return mean, log_variance.clip(-30, 20)

    def decode(self, latents: Float[jax.Array, "batch time rows columns latents"]) -> jax.Array:
        """The clip of latents."""
        x = self.from_latents(latents)
        for (block, conv), strides in reversed(list(zip(self.up, self.strides, strict=True))):
            x = block(x)
            for axis, stride in enumerate(strides, 1):
                x = jnp.repeat(x, stride, axis)
            x = conv(x)
        return from_patches(self.head(nnx.silu(x)), self.patch)

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"]
    ) -> Float[jax.Array, "batch time height width channels"]:
        return self.decode(self.encode(x)[0])


@register_model
def video_vae(
    *, channels: int = 1, latent_channels: int = 8, patch: int = 4, widths: Sequence[int] = (32, 64), rngs: nnx.Rngs
) -> VideoVAE:
    """The causal video autoencoder; the defaults code 16x64x64 pixels as 8x8x8 places of eight numbers."""
    return VideoVAE(channels, latent_channels, patch, tuple(widths), rngs=rngs)
