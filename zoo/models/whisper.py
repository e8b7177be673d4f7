"""Whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv:2212.04356).

A transformer that reads a log-mel spectrogram of 30 seconds and writes text, one token after another.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from zoo.models.layers import Conv
from zoo.registry import register_model

_HEAD_FEATURES = 64

type Cache = dict[str, Any]
"""What the decoder remembers: `heard`, keys and values `[layers, 2, B, heads, 1500, 64]` of the encoder's features, and
`written`, those `[layers, 2, B, heads, text_context, 64]` of the tokens so far."""


class Attention(nnx.Module):
    """Attention of many heads; the keys have no bias, as in the original."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.heads = features // _HEAD_FEATURES
        self.query = nnx.Linear(features, features, rngs=rngs)
        self.key = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)

    def keys_and_values(self, x: Float[Any, "batch time features"]) -> Float[jax.Array, "2 batch heads time 64"]:
        return jnp.stack([self._in_heads(self.key(x)), self._in_heads(self.value(x))])

    def __call__(
        self,
        x: Float[jax.Array, "batch time features"],
        seen: Float[jax.Array, "2 batch heads seen 64"],
        mask: jax.Array | None = None,
    ) -> tuple[Float[jax.Array, "batch time features"], Float[jax.Array, "batch heads time seen"]]:
        """What x finds in `seen`, and with which weights; `mask` is false where it must not look."""
        keys, values = seen
        scores = self._in_heads(self.query(x)) @ keys.mT / math.sqrt(_HEAD_FEATURES)
        scores = scores.astype(jnp.float32)
        weights = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -jnp.inf))
        found = weights.astype(x.dtype) @ values
        return self.out(found.swapaxes(1, 2).reshape(x.shape)), weights

    def _in_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, _HEAD_FEATURES).swapaxes(1, 2)


class Block(nnx.Module):
    """A layer of the encoder, or with `listens` of the decoder, which attends to the encoder's features too."""

    def __init__(self, features: int, *, listens: bool, rngs: nnx.Rngs):
        self.self_norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.self_attention = Attention(features, rngs)
        self.cross_norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs) if listens else None
        self.cross_attention = Attention(features, rngs) if listens else None
        self.norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.widen = nnx.Linear(features, 4 * features, rngs=rngs)
        self.narrow = nnx.Linear(4 * features, features, rngs=rngs)

    def encode(self, x: jax.Array) -> jax.Array:
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, self.self_attention.keys_and_values(normed))[0]
        return self._think(x)

    def decode(
        self, x: jax.Array, heard: jax.Array, written: jax.Array, position: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x `[B, N, F]`, what is written with x in it, and where in `heard` x looked `[B, heads, N, seen]`."""
        assert self.cross_norm is not None
        assert self.cross_attention is not None
        normed = self.self_norm(x)
        new = self.self_attention.keys_and_values(normed).astype(written.dtype)
        written = jax.lax.dynamic_update_slice_in_dim(written, new, position, axis=3)
        reached = position + jnp.arange(x.shape[1])[:, None] >= jnp.arange(written.shape[3])
        x = x + self.self_attention(normed, written, reached)[0]
        found, looked = self.cross_attention(self.cross_norm(x), heard)
        return self._think(x + found), written, looked

    def _think(self, x: jax.Array) -> jax.Array:
        return x + self.narrow(jax.nn.gelu(self.widen(self.norm(x)), approximate=False))


class Whisper(nnx.Module):
    """Log-mel spectrograms to logits of the next token.

    Attributes:
      audio_context: steps of the encoder, half as many as frames of the spectrogram.
      text_context: the most tokens, prompt and all.
    """

    audio_context, text_context = 1500, 448

    def __init__(self, layers: int, features: int, num_mels: int, vocabulary: int, rngs: nnx.Rngs):
        self.num_mels, self.vocabulary = num_mels, vocabulary
        self.conv_1 = Conv(num_mels, features, (3,), padding=((1, 1),), rngs=rngs)
        self.conv_2 = Conv(features, features, (3,), strides=2, padding=((1, 1),), rngs=rngs)
        draw = nnx.initializers.normal(0.01)
        self.audio_positions = nnx.Param(_sinusoids(self.audio_context, features))
        self.encoder = nnx.List([Block(features, listens=False, rngs=rngs) for _ in range(layers)])
        self.encoder_norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.tokens = nnx.Param(draw(rngs.params(), (vocabulary, features), jnp.float32))
        self.text_positions = nnx.Param(draw(rngs.params(), (self.text_context, features), jnp.float32))
        self.decoder = nnx.List([Block(features, listens=True, rngs=rngs) for _ in range(layers)])
        self.decoder_norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)

    def encode(self, mel: Float[Any, "batch 3000 mels"]) -> Float[jax.Array, "batch 1500 features"]:
        """What is heard, of a spectrogram as `zoo.data.log_mel` makes it."""
        x = jax.nn.gelu(self.conv_1(mel), approximate=False)
        x = jax.nn.gelu(self.conv_2(x), approximate=False) + self.audio_positions[...].astype(mel.dtype)
        for block in self.encoder:
            x = block.encode(x)
        return self.encoder_norm(x)

    def remember(self, encoded: Float[Any, "batch 1500 features"], length: int | None = None) -> Cache:
        """What `decode` starts from: keys and values of the sound, and room for `length` tokens."""
        blocks = [block.cross_attention for block in self.decoder]
        heard = jnp.stack([attention.keys_and_values(encoded) for attention in blocks if attention is not None])
        written = jnp.zeros((*heard.shape[:-2], length or self.text_context, _HEAD_FEATURES), heard.dtype)
        return {"heard": heard, "written": written}

    def decode(
        self, tokens: Int[Any, "batch count"], cache: Cache, position: Int[Any, ""]
    ) -> tuple[Float[jax.Array, "batch count vocabulary"], Cache, Float[jax.Array, "layers batch heads count 1500"]]:
        """Logits, float32, of what follows each token; the cache with these tokens; and where in the sound each looked.

        `position` is that of the first of them.
        """
        places = jax.lax.dynamic_slice_in_dim(self.text_positions[...], position, tokens.shape[1])
        x = (self.tokens[...][tokens] + places).astype(cache["heard"].dtype)
        written, looked = [], []
        for number, block in enumerate(self.decoder):
            x, now, where = block.decode(x, cache["heard"][number], cache["written"][number], position)
            written.append(now)
            looked.append(where)
        logits = self.decoder_norm(x) @ self.tokens[...].T.astype(x.dtype)
        cache = cache | {"written": jnp.stack(written)}
        return logits.astype(jnp.float32), cache, jnp.stack(looked)

    def __call__(
        self, mel: Float[Any, "batch 3000 mels"], tokens: Int[Any, "batch count"]
    ) -> Float[jax.Array, "batch count vocabulary"]:
        """Logits of what follows each token, all known beforehand, as in training."""
        return self.decode(tokens, self.remember(self.encode(mel), tokens.shape[1]), jnp.int32(0))[0]


def _sinusoids(length: int, features: int) -> jax.Array:
    """Positions as sines and cosines of wavelengths from 2 pi to 20,000 pi, `[length, features]`."""
    rates = jnp.exp(-math.log(10_000) / (features // 2 - 1) * jnp.arange(features // 2))
    angles = jnp.arange(length)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


@register_model
def whisper(
    *, layers: int = 4, features: int = 384, num_mels: int = 80, vocabulary: int = 51864, rngs: nnx.Rngs
) -> Whisper:
    """Whisper; the defaults are tiny.en's.

    Args:
      layers: of the encoder, and of the decoder.
      features: a multiple of 64, of which each head has 64.
      vocabulary: 51864 for those that know English alone, 51865 for others, 51866 for large-v3.
    """
    return Whisper(layers, features, num_mels, vocabulary, rngs)
