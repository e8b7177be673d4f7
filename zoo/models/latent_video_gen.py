"""The flow-matching generator on latents: a video autoencoder that stays as it is, and what denoises its latents.

After Rombach et al. 2022 (arXiv:2112.10752). A step of the sampler costs no more than the latents are large; coding a
clip comes once, in training once a step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.video_dit import VideoDiT, video_dit
from zoo.models.video_gen import VideoGen, video_gen
from zoo.models.video_vae import VideoVAE
from zoo.registry import register_model, unknown

DENOISERS = {"video_gen": video_gen, "video_dit": video_dit}


class LatentVideoGen(nnx.Module):
    """Called with latents as `zoo.models.denoiser_pieces` says of clips; `encode` and `decode` lead there and back.

    Attributes:
      deviation: of the autoencoder's latents, by which they are divided.
      frames_a_step: how many frames share their latents.
    """

    def __init__(self, codec: VideoVAE, denoiser: VideoGen | VideoDiT, deviation: float):
        self.codec, self.denoiser, self.deviation = codec, denoiser, deviation
        self.channels, self.num_classes = codec.channels, denoiser.num_classes
        self.frames_a_step = codec.shrink[0]

    def encode(
        self, x: Float[jax.Array, "batch time height width channels"]
    ) -> Float[jax.Array, "batch steps rows columns latents"]:
        """The latents, about as wide as the noise, of clips in [-1, 1]."""
        return self.codec.encode(x)[0] / self.deviation

    def decode(
        self, latents: Float[jax.Array, "batch steps rows columns latents"]
    ) -> Float[jax.Array, "batch time height width channels"]:
        """The clips of latents."""
        return self.codec.decode(latents * self.deviation)

    def __call__(
        self,
        x: Float[jax.Array, "batch steps rows columns latents"],
        time: Float[jax.Array, "batch"],
        classes: Float[jax.Array, "batch classes"],
        known: Float[jax.Array, "batch steps"],
    ) -> Float[jax.Array, "batch steps rows columns latents"]:
        return self.denoiser(x, time, classes, known)


@register_model
def latent_video_gen(
    *,
    channels: int = 1,
    num_classes: int = 10,
    latent_channels: int = 8,
    codec_patch: int = 4,
    codec_widths: Sequence[int] = (32, 64),
    deviation: float = 1.0,
    denoiser: str = "video_gen",
    denoiser_options: Mapping[str, Any] | None = None,
    rngs: nnx.Rngs,
) -> LatentVideoGen:
    """A generator on latents; the defaults fit 16x64x64 clips of moving digits, 8x8x8 latents of eight numbers.

    Args:
      latent_channels, codec_patch, codec_widths: of the autoencoder, as `video_vae` has them.
      deviation: see `LatentVideoGen`.
      denoiser: a name in `DENOISERS`; each place of the latents is a patch of its own.
      denoiser_options: what else it is made with.

    Raises:
      UserError: no denoiser of that name.
    """
    if denoiser not in DENOISERS:
        raise unknown("denoiser", denoiser, DENOISERS)
    codec = VideoVAE(channels, latent_channels, codec_patch, tuple(codec_widths), rngs=rngs)
    sees = {"channels": latent_channels, "num_classes": num_classes, "patch": 1}
    return LatentVideoGen(codec, DENOISERS[denoiser](**sees, **(denoiser_options or {}), rngs=rngs), deviation)
