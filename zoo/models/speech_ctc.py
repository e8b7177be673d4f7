"""CNN-BiLSTM-CTC: spells what is said, a symbol or nothing every 30 ms (Graves et al. 2006; Hannun et al. 2014).

Convolutions over a log-mel spectrogram shorten it to a third, LSTM layers read it, and connectionist temporal
classification (doi:10.1145/1143844.1143891) needs no times of letters to learn from. Deep Speech (arXiv:1412.5567) is
built so, with more layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.models.recurrent import Recurrent
from zoo.registry import register_model

STRIDE = 3  # frames of a step
_WINDOW = 5  # frames or steps that a convolution sees
_STRIDES = (1, STRIDE)

type State = dict[str, Any]


class SpeechCTC(nnx.Module):
    """A log-mel spectrogram to logits of symbols for each step of `STRIDE` frames; symbol 0 is CTC's blank.

    Attributes:
      is_causal: whether a step depends on nothing that comes later, so that `along` can go on where it stopped.
      num_mels: bands of the spectrogram.
    """

    def __init__(
        self,
        num_mels: int,
        features: int,
        hidden_features: int,
        num_layers: int,
        num_classes: int,
        *,
        bidirectional: bool,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.is_causal, self.num_mels = not bidirectional, num_mels
        widths = (num_mels, features, features)
        self.convs = nnx.List(
            [
                Conv(widths[place], widths[place + 1], (_WINDOW,), strides=stride, padding="VALID", rngs=rngs)
                for place, stride in enumerate(_STRIDES)
            ]
        )
        # Over the features of one step alone: nothing to be known of steps to come, and no statistics of batches.
        self.norms = nnx.List([nnx.LayerNorm(features, rngs=rngs) for _ in _STRIDES])
        self.recurrent = Recurrent(
            features, hidden_features, cell="lstm", num_layers=num_layers, bidirectional=bidirectional, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(self.recurrent.features, num_classes, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any) -> State:
        """What `along` starts from: zeros for the frames and steps before the first that convolutions see."""
        before = [
            jnp.zeros((batch, _WINDOW - stride, conv.kernel.shape[1]), dtype)
            for conv, stride in zip(self.convs, _STRIDES, strict=True)
        ]
        return {"before": tuple(before), "recurrent": self.recurrent.initial_state(batch, dtype)}

    def __call__(self, x: Float[Any, "batch frames mels"]) -> Float[jax.Array, "batch steps classes"]:
        """Logits of a whole sound; frames are a multiple of `STRIDE`."""
        for conv, norm, stride in zip(self.convs, self.norms, _STRIDES, strict=True):
            around = _WINDOW - stride
            behind = 0 if self.is_causal else around // 2
            x = jax.nn.relu(norm(conv(jnp.pad(x, ((0, 0), (around - behind, behind), (0, 0))))))
        hidden, _ = self.recurrent(self.dropout(x))
        return self.head(self.dropout(hidden))

    def along(
        self, x: Float[Any, "batch frames mels"], state: State | None = None
    ) -> tuple[Float[jax.Array, "batch steps classes"], State]:
        """Logits of the next steps, and the state with which the sound goes on; frames are a multiple of `STRIDE`.

        In pieces a sound gives what it gives as a whole.

        Raises:
          ValueError: the layers are bidirectional, so they know nothing before the end.
        """
        if not self.is_causal:
            raise ValueError("bidirectional layers have no answer before the sound has ended")
        state = self.initial_state(len(x), x.dtype) if state is None else state
        after = []
        for conv, norm, before in zip(self.convs, self.norms, state["before"], strict=True):
            seen = jnp.concatenate([before, x], axis=1)
            after.append(seen[:, seen.shape[1] - before.shape[1] :])
            x = jax.nn.relu(norm(conv(seen)))
        hidden, recurrent = self.recurrent(self.dropout(x), state["recurrent"])
        return self.head(self.dropout(hidden)), {"before": tuple(after), "recurrent": recurrent}


@register_model
def speech_ctc(
    *,
    num_mels: int = 40,
    features: int = 128,
    hidden_features: int = 128,
    num_layers: int = 2,
    num_classes: int = 28,
    bidirectional: bool = True,
    dropout: float = 0.1,
    rngs: nnx.Rngs,
) -> SpeechCTC:
    """Two convolutions and two LSTM layers; `bidirectional=False` hears nothing ahead, and streams."""
    return SpeechCTC(
        num_mels,
        features,
        hidden_features,
        num_layers,
        num_classes,
        bidirectional=bidirectional,
        dropout=dropout,
        rngs=rngs,
    )
