"""What the networks of the flow-matching generator are made of, whatever lies between.

A denoiser is called with a noisy clip x `[B, T, H, W, channels]` float in about [-1, 1], its noise level time `[B]` in
[0, 1] (0 noise, 1 data), classes `[B, num_classes]` as counts, all zero for "any", and known `[B, T]`, 1 for a frame
that x shows without noise and 0 for another; it gives the clean clip, shaped like x.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.errors import UserError

# Periods from one position to 64: sine and cosine tell apart all positions of clips up to that long.
_LONGEST_PERIOD = 64.0


def sinusoids(position: jax.Array, features: int, longest: float) -> jax.Array:
    """Sines and cosines of `position [...]` at geometrically spaced periods up to `longest`: `[..., features]`."""
    frequencies = 2 * jnp.pi / longest ** jnp.linspace(0.2, 1, features // 2)
    angle = position[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def places(shape: Sequence[int], features: int) -> jax.Array:
    """What tells apart the positions of a grid: a share of the channels for each axis, `[*shape, features]`."""
    place = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), -1).astype(jnp.float32)
    # In whole sine-cosine pairs.
    share = features // (2 * len(shape)) * 2
    place = sinusoids(place, share, _LONGEST_PERIOD).reshape(*shape, len(shape) * share)
    return jnp.pad(place, (*[(0, 0)] * len(shape), (0, features - len(shape) * share)))


def to_patches(x: Float[jax.Array, "batch time height width channels"], patch: int) -> jax.Array:
    """Each square of `patch` pixels' side as the channels of one: `[B, T, H / patch, W / patch, patch^2 C]`."""
    b, t, h, w, c = x.shape
    x = x.reshape(b, t, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h // patch, w // patch, -1)


def from_patches(x: Float[jax.Array, "batch time rows columns features"], patch: int) -> jax.Array:
    """The inverse of `to_patches`: `[B, T, H, W, C]`."""
    b, t, h, w, features = x.shape
    x = x.reshape(b, t, h, w, patch, patch, features // patch**2)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h * patch, w * patch, -1)


def check_sides(shape: Sequence[int], *, frames: int = 1, pixels: int = 1) -> None:
    """Of a clip `[B, T, H, W, C]`.

    Raises:
      UserError: its frames do not divide by `frames`, or its sides by `pixels`.
    """
    _, t, h, w, _ = shape
    if t % frames:
        raise UserError(f"clips of {t} frames do not divide by {frames}; take {-(-t // frames) * frames}")
    if h % pixels or w % pixels:
        fitting = f"{-(-h // pixels) * pixels}x{-(-w // pixels) * pixels}"
        raise UserError(f"frames of {h}x{w} do not divide by {pixels}; resize or crop them, say to {fitting}")


class Condition(nnx.Module):
    """Noise level and classes as one vector: `[B]` and `[B, num_classes]` to `[B, features]`."""

    def __init__(self, num_classes: int, features: int, *, rngs: nnx.Rngs):
        self.time_in = nnx.Linear(64, features, rngs=rngs)
        self.time_out = nnx.Linear(features, features, rngs=rngs)
        self.class_in = nnx.Linear(num_classes, features, use_bias=False, rngs=rngs)

    def __call__(
        self, time: Float[jax.Array, "batch"], classes: Float[jax.Array, "batch classes"]
    ) -> Float[jax.Array, "batch features"]:
        level = self.time_out(nnx.silu(self.time_in(sinusoids(time * 1000, 64, 10_000.0))))
        return nnx.silu(level + self.class_in(classes))


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


class Attention(nnx.Module):
    """Multi-head self-attention over the second last axis of `[..., tokens, C]`, queries and keys normalised."""

    def __init__(self, features: int, head_features: int, *, rngs: nnx.Rngs):
        self.head_features = head_features
        self.to_query_key_value = nnx.Linear(features, 3 * features, use_bias=False, rngs=rngs)
        self.query_norm = nnx.RMSNorm(head_features, rngs=rngs)
        self.key_norm = nnx.RMSNorm(head_features, rngs=rngs)
        self.out = nnx.Linear(features, features, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        heads = self.to_query_key_value(x).reshape(
            -1, x.shape[-2], 3, x.shape[-1] // self.head_features, self.head_features
        )
        query, key, value = (heads[..., i, :, :] for i in range(3))
        mixed = jax.nn.dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        return self.out(mixed.reshape(x.shape))


class Perceptron(nnx.Module):
    """Two layers, three times as wide between: `[..., C]` to the same; starts at zero."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.expand = nnx.Linear(features, 3 * features, rngs=rngs)
        self.contract = nnx.Linear(3 * features, features, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.contract(nnx.silu(self.expand(x)))
