"""Silero VAD 6 (Silero Team 2021-2025, github.com/snakers4/silero-vad): where in a sound somebody speaks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv
from zoo.models.recurrent import Recurrent
from zoo.registry import register_model

SAMPLES = 512  # of a step
BEFORE = 64  # samples of the step before that each step sees again
_BANDS = 129  # from 0 to 8,000 Hz, of spectra of 256 samples

type State = dict[str, Any]


class SileroVAD(nnx.Module):
    """Sound of 16,000 samples a second to the logit that somebody speaks, for each step of 512 samples.

    Attributes:
      window: samples of a step.
    """

    window = SAMPLES

    def __init__(self, rngs: nnx.Rngs):
        def conv(in_features: int, out_features: int, strides: int = 1) -> Conv:
            return Conv(in_features, out_features, (3,), strides=strides, padding=((1, 1),), rngs=rngs)

        self.spectrum = Conv(1, 2 * _BANDS, (256,), strides=128, padding="VALID", use_bias=False, rngs=rngs)
        self.convs = nnx.List([conv(_BANDS, 128), conv(128, 64, 2), conv(64, 64, 2), conv(64, 128)])
        self.recurrent = Recurrent(128, 128, cell="lstm", num_layers=1, bidirectional=False, rngs=rngs)
        self.head = nnx.Linear(128, 1, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any) -> State:
        """What `along` starts from: silence."""
        return {"before": jnp.zeros((batch, BEFORE), dtype), "recurrent": self.recurrent.initial_state(batch, dtype)}

    def along(
        self, samples: Float[Any, "batch samples"], state: State | None = None
    ) -> tuple[Float[jax.Array, "batch steps"], State]:
        """Logits of each step, and the state with which the sound goes on; samples from -1 to 1, a multiple of 512."""
        state = self.initial_state(len(samples), samples.dtype) if state is None else state
        steps = samples.reshape(len(samples), -1, SAMPLES)
        tails = jnp.concatenate([state["before"][:, None], steps[:, :-1, -BEFORE:]], axis=1)
        seen = jnp.concatenate([tails, steps], axis=2)
        seen = jnp.pad(seen, ((0, 0), (0, 0), (0, BEFORE)), mode="reflect")
        waves = self.spectrum(seen.reshape(-1, seen.shape[-1], 1))
        x = jnp.hypot(*jnp.split(waves, 2, axis=-1))
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        hidden, recurrent = self.recurrent(x.reshape(*steps.shape[:2], -1), state["recurrent"])
        logits = self.head(jax.nn.relu(hidden))[..., 0]
        return logits, {"before": steps[:, -1, -BEFORE:], "recurrent": recurrent}

    def __call__(self, samples: Float[Any, "batch samples"]) -> Float[jax.Array, "batch steps"]:
        return self.along(samples)[0]


@register_model
def silero_vad(*, rngs: nnx.Rngs) -> SileroVAD:
    """Silero VAD for 16,000 samples a second."""
    return SileroVAD(rngs)
