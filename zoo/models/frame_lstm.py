"""An LSTM over the frame features of YouTube-8M, with a mixture of experts for each label.

Abu-El-Haija et al. 2016, "YouTube-8M: A Large-Scale Video Classification Benchmark", arXiv:1609.08675, as the starter
code that came with the data set has it: two layers of 1024, the last state, two experts a label.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from zoo.models.recurrent import Recurrent
from zoo.registry import register_model

VISUAL_FEATURES, AUDIO_FEATURES = 1024, 128  # of a frame, a second apart
NUM_LABELS = 3862  # of YouTube-8M since 2018


class Mixture(nnx.Module):
    """Logits of labels that each hold or not, `[B, C]` to `[B, labels]`, by experts among which a gate chooses.

    The gate's last choice is an expert that always says no.
    """

    def __init__(self, in_features: int, num_labels: int, num_experts: int, *, rngs: nnx.Rngs):
        self.gates = nnx.Linear(in_features, num_labels * (num_experts + 1), use_bias=False, rngs=rngs)
        self.experts = nnx.Linear(in_features, num_labels * num_experts, rngs=rngs)
        self.num_experts = num_experts

    def __call__(self, x: Float[Any, "batch features"]) -> Float[jax.Array, "batch labels"]:
        gates = jax.nn.log_softmax(self.gates(x).reshape(len(x), -1, self.num_experts + 1))
        experts = self.experts(x).reshape(len(x), -1, self.num_experts)
        # The logarithms of yes and no, rather than a probability that may round to either.
        yes = jax.nn.logsumexp(gates[..., :-1] + jax.nn.log_sigmoid(experts), axis=-1)
        no = jnp.concatenate([gates[..., :-1] + jax.nn.log_sigmoid(-experts), gates[..., -1:]], axis=-1)
        return yes - jax.nn.logsumexp(no, axis=-1)


class FrameLSTM(nnx.Module):
    """Logits of YouTube-8M's labels for frame features `[B, T, 1152]`, visual before audio; sigmoids are probabilities.

    Behind the first `num_frames` of a video `[B]` there may be any numbers; without `num_frames` all T are its own.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int,
        num_classes: int,
        num_experts: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.recurrent = Recurrent(
            in_features, hidden_features, cell="lstm", num_layers=num_layers, bidirectional=False, rngs=rngs
        )
        self.feature_size = hidden_features
        self.classifier = Mixture(hidden_features, num_classes, num_experts, rngs=rngs)

    def features(
        self, x: Float[Any, "batch time features"], num_frames: Int[Any, " batch"] | None = None
    ) -> Float[jax.Array, "batch hidden"]:
        """The last layer's state at each video's last frame."""
        outputs, _ = self.recurrent(x)
        if num_frames is None:
            return outputs[:, -1]
        return jnp.take_along_axis(outputs, (jnp.asarray(num_frames) - 1)[:, None, None], axis=1)[:, 0]

    def __call__(
        self, x: Float[Any, "batch time features"], num_frames: Int[Any, " batch"] | None = None
    ) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        return self.classifier(self.features(x, num_frames))


@register_model
def frame_lstm(
    *,
    in_features: int = VISUAL_FEATURES + AUDIO_FEATURES,
    hidden_features: int = 1024,
    num_layers: int = 2,
    num_experts: int = 2,
    num_classes: int = NUM_LABELS,
    rngs: nnx.Rngs,
) -> FrameLSTM:
    """The starter code's LSTM, of 37M parameters at its defaults."""
    return FrameLSTM(in_features, hidden_features, num_layers, num_classes, num_experts, rngs=rngs)
