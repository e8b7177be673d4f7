"""Whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv:2212.04356).

A transformer that reads a log-mel spectrogram of 30 seconds and writes text, one token after another.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from zoo.models.layers import Conv
from zoo.registry import register_model

_HEAD_FEATURES = 64

type Memory = tuple[jax.Array, jax.Array]
"""Keys and values `[B, heads, seen, 64]` of a layer."""

type Cache = dict[str, tuple[Memory, ...]]
"""What the decoder remembers in each of its layers: `heard` the encoder's features, `written` the tokens so far."""


class Attention(nnx.Module):
    """Attention of many heads; the keys have no bias, as in the original."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.heads = features // _HEAD_FEATURES
        self.query = nnx.Linear(features, features, rngs=rngs)
        self.key = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)

    def keys_and_values(self, x: Float[Any, "batch time features"]) -> Memory:
        return self._in_heads(self.key(x)), self._in_heads(self.value(x))

    def __call__(
        self, x: Float[jax.Array, "batch time features"], memory: Memory, mask: jax.Array | None = None
    ) -> tuple[Float[jax.Array, "batch time features"], Float[jax.Array, "batch heads time seen"]]:
        """What x finds in a memory, and with which weights; `mask` is false where it must not look."""
        keys, values = memory
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
        self, x: jax.Array, heard: Memory, written: Memory, slot: Any, seen: jax.Array
    ) -> tuple[jax.Array, Memory, jax.Array]:
        """x `[B, N, F]`, what is written with x in it, and where in `heard` x looked `[B, heads, N, heard]`."""
        assert self.cross_norm is not None
        assert self.cross_attention is not None
        normed = self.self_norm(x)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis=2)
            for old, new in zip(written, self.self_attention.keys_and_values(normed), strict=True)
        )
        x = x + self.self_attention(normed, (keys, values), seen)[0]
        found, looked = self.cross_attention(self.cross_norm(x), heard)
        return self._think(x + found), (keys, values), looked

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

    def remember(self, encoded: Float[Any, "batch 1500 features"], slots: int | None = None) -> Cache:
        """What `decode` starts from: keys and values of the sound, and room for so many tokens."""
        blocks = [block.cross_attention for block in self.decoder]
        heard = tuple(attention.keys_and_values(encoded) for attention in blocks if attention is not None)
        keys = heard[0][0]
        empty = jnp.zeros((*keys.shape[:2], slots or self.text_context, _HEAD_FEATURES), keys.dtype)
        return {"heard": heard, "written": ((empty, empty),) * len(heard)}

    def decode(
        self,
        tokens: Int[Any, "batch count"],
        cache: Cache,
        slot: Int[Any, ""],
        places: Int[Any, " count"] | None = None,
        seen: Bool[Any, "batch count slots"] | None = None,
    ) -> tuple[Float[jax.Array, "batch count vocabulary"], Cache, Float[jax.Array, "layers batch heads count 1500"]]:
        """Logits, float32, of what follows each token; the cache with these tokens; and where in the sound each looked.

        Args:
          slot: which slot of the cache the first of the tokens takes; the others take those behind it.
          places: where in the text the tokens are; without it each is where its slot is.
          seen: the slots that each token looks at; without it those before its own, and its own. Several texts of one
            sound can so be written at once, each of which sees its own past.
        """
        slots = cache["written"][0][0].shape[2]
        places = jnp.asarray(slot + jnp.arange(tokens.shape[1]) if places is None else places)
        looks_at = jnp.arange(slots) <= places[:, None] if seen is None else jnp.asarray(seen)[:, None]
        x = (self.tokens[...][tokens] + self.text_positions[...][places]).astype(cache["heard"][0][0].dtype)
        written, looked = [], []
        for block, heard, before in zip(self.decoder, cache["heard"], cache["written"], strict=True):
            x, now, where = block.decode(x, heard, before, slot, looks_at)
            written.append(now)
            looked.append(where)
        logits = self.decoder_norm(x) @ self.tokens[...].T.astype(x.dtype)
        return logits.astype(jnp.float32), cache | {"written": tuple(written)}, jnp.stack(looked)

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
