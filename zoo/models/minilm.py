"""MiniLM: a small BERT whose averaged outputs stand for a sentence.

Wang et al. 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers",
arXiv:2002.10957; trained for sentences as Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084; the encoder is
BERT's (Devlin et al. 2018, arXiv:1810.04805).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from zoo.registry import register_model

_HEAD_FEATURES = 32
_EPSILON = 1e-12  # of the norms, as published


class Block(nnx.Module):
    """A layer of the encoder; the norms come after the sums, as in BERT."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.heads = features // _HEAD_FEATURES
        self.query = nnx.Linear(features, features, rngs=rngs)
        self.key = nnx.Linear(features, features, rngs=rngs)
        self.value = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(features, epsilon=_EPSILON, rngs=rngs)
        self.widen = nnx.Linear(features, 4 * features, rngs=rngs)
        self.narrow = nnx.Linear(4 * features, features, rngs=rngs)
        self.norm = nnx.LayerNorm(features, epsilon=_EPSILON, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "batch tokens features"], is_text: Bool[jax.Array, "batch tokens"]
    ) -> Float[jax.Array, "batch tokens features"]:
        query, key, value = (self._in_heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = (query @ key.mT / math.sqrt(_HEAD_FEATURES)).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(is_text[:, None, None], scores, jnp.finfo(jnp.float32).min))
        found = weights.astype(x.dtype) @ value
        x = self.attention_norm(x + self.out(found.swapaxes(1, 2).reshape(x.shape)))
        return self.norm(x + self.narrow(jax.nn.gelu(self.widen(x), approximate=False)))

    def _in_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, _HEAD_FEATURES).swapaxes(1, 2)


class MiniLM(nnx.Module):
    """Ids of word pieces to a unit vector for each sentence.

    Attributes:
      padding: the id that fills up short sentences, and counts for nothing.
    """

    padding = 0

    def __init__(self, layers: int, features: int, vocabulary: int, most_tokens: int, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(0.02)

        def table(rows: int) -> nnx.Param:
            return nnx.Param(draw(rngs.params(), (rows, features), jnp.float32))

        self.tokens, self.positions, self.sentence = table(vocabulary), table(most_tokens), table(2)
        self.embedding_norm = nnx.LayerNorm(features, epsilon=_EPSILON, rngs=rngs)
        self.encoder = nnx.List([Block(features, rngs) for _ in range(layers)])

    def __call__(self, ids: Int[Any, "batch tokens"]) -> Float[jax.Array, "batch features"]:
        """The mean over the outputs of all that is not padding, scaled to length 1."""
        ids = jnp.asarray(ids)
        is_text = ids != self.padding
        # Every sentence is the first one of BERT's pair.
        x = self.tokens[...][ids] + self.positions[...][: ids.shape[1]] + self.sentence[...][0]
        x = self.embedding_norm(x)
        for block in self.encoder:
            x = block(x, is_text)
        x = x.astype(jnp.float32)
        mean = jnp.sum(x * is_text[..., None], axis=1) / jnp.maximum(jnp.sum(is_text, axis=1, keepdims=True), 1)
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), _EPSILON)


@register_model
def minilm(
    *, layers: int = 6, features: int = 384, vocabulary: int = 30522, most_tokens: int = 512, rngs: nnx.Rngs
) -> MiniLM:
    """MiniLM; the defaults are all-MiniLM-L6-v2's.

    Args:
      features: a multiple of 32, of which each head has 32.
      most_tokens: of a sentence.
    """
    return MiniLM(layers, features, vocabulary, most_tokens, rngs)
