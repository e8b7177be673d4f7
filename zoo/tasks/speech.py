"""Recognition of speech: which words are said, learnt by connectionist temporal classification."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from zoo.data.log_mel import BEFORE, HOP, causal_log_mel
from zoo.data.spoken_commands import text_of
from zoo.metrics.speech import word_figures
from zoo.models.ctc_search import greedy
from zoo.models.speech_ctc import STRIDE
from zoo.precision import as_parameters

STEP = STRIDE * HOP  # samples

# SpecAugment (Park et al. 2019, arXiv:1904.08779): so many stretches of time and of pitch are hidden.
_HIDDEN, _LONGEST, _WIDEST = 2, 8, 4  # each; frames; bands


@dataclasses.dataclass(frozen=True)
class Speech:
    """CTC's loss of spelling what is said (Graves et al. 2006), a symbol of what is said on average.

    A batch is `{"sound": int16 [B, samples], "samples": int [B], "symbols": int [B, N]}`: 16,000 samples a second, how
    many of them count, and what is said, filled up with 0. The figures of all held-out items together are of the
    likeliest path of each: the word error rate, and the share of texts without any error.
    """

    needs: ClassVar[tuple[str, ...]] = ("sound", "samples", "symbols")

    def prepared(self, train: Any, held_out: Any) -> tuple["Speech", Any, Any]:
        return self, train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = model(hidden_in_part(_spectrogram(model, batch), key)).astype(jnp.float32)
        return ctc_loss(logits, _steps(batch), jnp.asarray(batch["symbols"])).mean(), {}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        del key  # nothing here is drawn
        logits, symbols = model(_spectrogram(model, batch)).astype(jnp.float32), jnp.asarray(batch["symbols"])
        return {
            "loss": ctc_loss(logits, _steps(batch), symbols),
            "answers": {"said": symbols, "heard": greedy(logits, _steps(batch), symbols.shape[1])},
        }

    def over_all(self, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        said, heard = ([text_of(symbols) for symbols in answers[name]] for name in ("said", "heard"))
        return word_figures(said, heard)

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []


def ctc_loss(
    logits: Float[jax.Array, "batch steps classes"],
    steps: Int[jax.Array, " batch"],
    symbols: Int[jax.Array, "batch symbols"],
) -> Float[jax.Array, " batch"]:
    """Negative log-probability of each text, divided by its symbols and one more for the end."""
    is_behind = jnp.arange(logits.shape[1]) >= steps[:, None]
    losses = optax.ctc_loss(logits, is_behind.astype(jnp.float32), symbols, (symbols == 0).astype(jnp.float32))
    return losses / ((symbols > 0).sum(axis=1) + 1)


def hidden_in_part(x: Float[jax.Array, "batch frames mels"], key: jax.Array) -> Float[jax.Array, "batch frames mels"]:
    """A spectrogram in which stretches of frames and bands, drawn for each sound, are as loud as all of it."""
    hidden = jnp.zeros((len(x), 1, 1), bool)
    for axis, most in ((1, _LONGEST), (2, _WIDEST)):
        for number in range(_HIDDEN):
            widths, starts = jax.random.split(jax.random.fold_in(key, axis * _HIDDEN + number))
            width = jax.random.randint(widths, (len(x), 1), 0, most + 1)
            start = jax.random.randint(starts, (len(x), 1), 0, x.shape[axis] - most)
            place = jnp.arange(x.shape[axis])
            stretch = (place >= start) & (place < start + width)
            hidden = hidden | jnp.expand_dims(stretch, 3 - axis)
    return jnp.where(hidden, x.mean(axis=(1, 2), keepdims=True), x)


def _spectrogram(model: Any, batch: Mapping[str, Any]) -> jax.Array:
    """As the model wants it, `[B, frames, mels]`, in the precision of its parameters."""
    sound = jnp.asarray(batch["sound"], jnp.float32) / 32768
    return as_parameters(model, causal_log_mel(jnp.pad(sound, ((0, 0), (BEFORE, 0))), model.num_mels))


def _steps(batch: Mapping[str, Any]) -> jax.Array:
    return -(-jnp.asarray(batch["samples"]) // STEP)
