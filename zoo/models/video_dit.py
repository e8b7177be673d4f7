"""A factorised space-time transformer that denoises clips: another backbone of the flow-matching generator.

Patches of the frames are tokens. Each block attends among those of a frame, then among those of all frames in one
place (the factorised self-attention of Arnab et al. 2021, "ViViT", arXiv:2103.15691), under scales and shifts
that noise level and classes tell, and starts as the identity (Peebles and Xie 2022, arXiv:2212.09748).
"""

import jax
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


class FactorisedBlock(nnx.Module):
    """Attention in space, attention in time, a perceptron: `[B, T, H, W, C]` to the same; starts as the identity."""

    def __init__(self, features: int, head_features: int, condition: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List(Modulation(features, condition, rngs=rngs) for _ in range(3))
        self.in_space = Attention(features, head_features, rngs=rngs)
        self.in_time = Attention(features, head_features, rngs=rngs)
        self.perceptron = Perceptron(features, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "batch time height width channels"], condition: Float[jax.Array, "batch condition"]
    ) -> Float[jax.Array, "batch time height width channels"]:
        b, t, h, w, c = x.shape
        space, time, each = self.norms
        x = x + self.in_space(space(x, condition).reshape(b, t, h * w, c)).reshape(x.shape)
        of_places = time(x, condition).transpose(0, 2, 3, 1, 4)
        x = x + self.in_time(of_places).transpose(0, 3, 1, 2, 4)
        return x + self.perceptron(each(x, condition))


class VideoDiT(nnx.Module):
    """The denoiser as a transformer; called as `zoo.models.denoiser_pieces` says. H and W must divide by `patch`."""

    def __init__(self, channels: int, num_classes: int, patch: int, features: int, num_blocks: int, *, rngs: nnx.Rngs):
        self.patch, self.channels, self.num_classes = patch, channels, num_classes
        self.condition = Condition(num_classes, features, rngs=rngs)
        self.stem = nnx.Linear(channels * patch**2, features, rngs=rngs)
        self.known_in = nnx.Linear(1, features, use_bias=False, rngs=rngs)
        self.blocks = nnx.List(FactorisedBlock(features, 32, features, rngs=rngs) for _ in range(num_blocks))
        self.last = Modulation(features, features, rngs=rngs)
        # What one token draws ends where the next one's begins: a window of 3x3 closes the seams.
        self.head = Conv(features, channels * patch**2, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self,
        x: Float[jax.Array, "batch time height width channels"],
        time: Float[jax.Array, "batch"],
        classes: Float[jax.Array, "batch classes"],
        known: Float[jax.Array, "batch time"],
    ) -> Float[jax.Array, "batch time height width channels"]:
        check_sides(x.shape, pixels=self.patch)
        condition = self.condition(time, classes).astype(x.dtype)
        x = self.stem(to_patches(x, self.patch)) + self.known_in(known[..., None].astype(x.dtype))[:, :, None, None]
        x = x + places(x.shape[1:4], x.shape[-1]).astype(x.dtype)
        for block in self.blocks:
            x = block(x, condition)
        return from_patches(self.head(nnx.silu(self.last(x, condition))), self.patch)


@register_model
def video_dit(
    *,
    channels: int = 1,
    num_classes: int = 10,
    patch: int = 8,
    features: int = 192,
    num_blocks: int = 6,
    rngs: nnx.Rngs,
) -> VideoDiT:
    """The flow-matching generator's factorised transformer; the defaults fit 16x64x64 clips of moving digits."""
    return VideoDiT(channels, num_classes, patch, features, num_blocks, rngs=rngs)
