"""The LSTM classifier of the introduction to deep learning for video: LSTM(64), dropout, Dense."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.recurrent import SequenceClassifier
from zoo.registry import register_model


class LSTM(SequenceClassifier):
    """Reads a sequence step by step and classifies it by the last hidden state.

    Call with `[B, T, ...]` float, everything behind time flattened to `in_features` a step: an image `[B, 28, 28]` or
    `[B, 28, 28, 1]` is read row by row with in_features=28. Returns logits `[B, num_classes]`.
    """

    def features(self, x: Float[Any, "batch time ..."]) -> Float[jax.Array, "batch hidden"]:
        """The last hidden state `[B, hidden_features]`."""
        return super().features(x.reshape(*x.shape[:2], -1))

    def __call__(self, x: Float[Any, "batch time ..."]) -> Float[jax.Array, "batch classes"]:
        return self.head(self.dropout(self.features(x)))


@register_model
def lstm(
    *, in_features: int = 1, hidden_features: int = 64, num_classes: int = 10, dropout: float = 0.5, rngs: nnx.Rngs
) -> LSTM:
    """LSTM(64) on (28, 1), dropout 0.5, Dense(10)."""
    return LSTM(in_features, hidden_features, num_classes, dropout=dropout, rngs=rngs)
