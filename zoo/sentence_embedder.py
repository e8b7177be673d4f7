"""Sentences as vectors that are near each other where the meanings are: what `zoo.load("minilm_l6_v2")` gives."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx

from zoo import hub
from zoo.predictor import Predictor
from zoo.registry import ModelCard

_LEAST_TOKENS = 16  # of a compiled call: sentences are filled up to a power of two, so that few programs serve them all


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a card's model reads.

    Attributes:
      tokenizer: a file as the library `tokenizers` reads it, kept beside the weights.
      most_tokens: of a sentence, its two marks included; what follows is left out.
      sentences_a_call: so many go through one compiled call.
    """

    tokenizer: str
    most_tokens: int
    sentences_a_call: int


class SentenceEmbedder(Predictor):
    """Sentences to unit vectors, whose dot products are cosines.

    Attributes:
      preprocess: what the card states of its input.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Reading(**card.preprocessing)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(hub.kept_file(card, self.preprocess.tokenizer)))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.preprocess.most_tokens)

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """float32 [sentences, features], each row of length 1."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        # Neighbours in length go together, and so with little padding.
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        found = np.zeros((len(ids), self._features), np.float32)
        for several in itertools.batched(order, self.preprocess.sentences_a_call):
            found[list(several)] = self._embed([ids[number] for number in several])
        return found

    @property
    def _features(self) -> int:
        model: Any = self.model
        return model.tokens.shape[-1]

    def _embed(self, ids: list[list[int]]) -> np.ndarray:
        longest = max(_LEAST_TOKENS, *map(len, ids))
        model: Any = self.model
        filled = np.full((self.preprocess.sentences_a_call, 1 << (longest - 1).bit_length()), model.padding, np.int32)
        for row, tokens in zip(filled, ids, strict=False):
            row[: len(tokens)] = tokens
        return np.asarray(_run(*nnx.split(self.model), filled))[: len(ids)]


@functools.partial(jax.jit, static_argnames="graph")
def _run(graph: nnx.GraphDef, state: nnx.State, ids: jax.Array) -> jax.Array:
    model: Any = nnx.merge(graph, state)
    return model(ids).astype(jnp.float32)
