"""Inception-v1 on single frames with an LSTM over them: what I3D knows of appearance, and what a sequence adds to it.

Its frames' network can start from I3D's, each kernel summed over time: I3D then sees every frame as a still film.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.inception import InceptionV1
from zoo.models.recurrent import Readout, Recurrent
from zoo.registry import register_model

type State = dict[str, Any]


class InceptionLSTM(nnx.Module):
    """Classifies video `[B, T, H, W, 3]` in [-1, 1] by all frames so far; made for 224x224.

    The logits of the frames' mean features, to which the LSTM gives a gain and a correction; it starts without either.
    """

    window = 1
    is_causal = True

    def __init__(self, num_classes: int, hidden_features: int, *, rngs: nnx.Rngs):
        self.frames = InceptionV1(num_classes, rngs=rngs)
        features = self.frames.frame_feature_size
        self.recurrent = Recurrent(features, hidden_features, cell="lstm", num_layers=1, bidirectional=False, rngs=rngs)
        self.mean = Readout(features, "mean", rngs=rngs)
        zeros = nnx.initializers.zeros
        self.correction = nnx.Linear(hidden_features, num_classes, kernel_init=zeros, rngs=rngs)
        self.log_gain = nnx.Linear(hidden_features, 1, kernel_init=zeros, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any) -> State:
        """What `along` starts from: the LSTM's state and the mean's."""
        return {"recurrent": self.recurrent.initial_state(batch, dtype), "mean": self.mean.initial_state(batch)}

    def follow(
        self, features: Float[jax.Array, "batch time 1024"], state: State | None = None
    ) -> tuple[dict[str, jax.Array], State]:
        """After each frame, by its features: `logits` `[B, T, classes]`, `uncorrected` ones without the LSTM's part."""
        state = self.initial_state(len(features), features.dtype) if state is None else state
        hidden, recurrent = self.recurrent(features, state["recurrent"])
        seen, mean = self.mean(features, state["mean"])
        uncorrected = self.frames.classify(seen)
        logits = uncorrected * jnp.exp(self.log_gain(hidden)) + self.correction(hidden)
        return {"logits": logits, "uncorrected": uncorrected}, {"recurrent": recurrent, "mean": mean}

    def along(
        self, x: Float[Any, "batch time height width 3"], state: State | None = None
    ) -> tuple[Float[jax.Array, "batch time classes"], State]:
        """Logits of all that was seen up to each frame, and the state with which the video goes on."""
        found, state = self.follow(self.frames.frame_features(x), state)
        return found["logits"], state

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        return self.along(x)[0][:, -1]


@register_model
def inception_lstm(*, num_classes: int = 400, hidden_features: int = 128, rngs: nnx.Rngs) -> InceptionLSTM:
    """Inception-v1 and an LSTM; `num_classes` defaults to Kinetics-400."""
    return InceptionLSTM(num_classes, hidden_features, rngs=rngs)
