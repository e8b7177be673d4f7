"""What Whisper writes down: greedy, sampled or beam search as one compiled loop, under the rules for time stamps.

Radford et al. 2022, arXiv:2212.04356, section 4.5, and the rules of the published code: a time stamp comes first,
within the first second; stamps come in pairs, an end and a beginning, but before the end of the text; none is earlier
than the one before; and where all stamps together are likelier than any word, it is one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

_NEVER = -jnp.inf
_FIRST_STAMPS = 51  # 0.00 to 1.00 seconds


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Which tokens mean what; `stamps` is 0.00 seconds, and each after it 0.02 seconds more."""

    end: int
    start: int
    previous: int
    no_speech: int
    no_stamps: int
    stamps: int
    suppressed: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Written:
    """What came out for each window.

    Attributes:
      tokens: int32 [B, steps], time stamps and text, filled up with the end token.
      lengths: int32 [B], without the end token.
      log_probability: float32 [B], mean over the tokens and the end.
      no_speech: float32 [B], the probability that nobody speaks.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probability: jax.Array
    no_speech: jax.Array


def search(
    model: Any,
    encoded: Float[jax.Array, "batch time features"],
    prompt: Int[jax.Array, " prompt"],
    temperature: Float[jax.Array, ""],
    key: jax.Array,
    *,
    vocabulary: Vocabulary,
    beams: int,
    steps: int,
) -> Written:
    """The likeliest text of `beams` that are followed, or with a temperature above 0 the best of so many drawn ones.

    Args:
      model: a `Whisper`.
      encoded: by its `encode`.
      prompt: tokens that go before, the last of which starts the transcript.
      steps: the most tokens that are written; prompt and steps have room in the model's text context.
    """
    batch = len(encoded)
    slots = len(prompt) + steps * beams
    cache = model.remember(encoded, slots)
    logits, cache, _ = model.decode(jnp.tile(prompt, (batch, 1)), cache, jnp.int32(0))
    start = len(prompt) - 1 - jnp.argmax(prompt[::-1] == vocabulary.start)
    no_speech = jax.nn.softmax(logits[:, start])[:, vocabulary.no_speech]
    # All beams are the same in the beginning: only the first may go on.
    apart = jnp.where(temperature > 0, 0.0, _NEVER)
    each = (batch, beams)
    state = {
        "cache": cache,
        "seen": jnp.broadcast_to(jnp.arange(slots) < len(prompt), (*each, slots)),
        "logits": jnp.broadcast_to(logits[:, -1:], (*each, logits.shape[-1])),
        "tokens": jnp.full((*each, steps), vocabulary.end),
        "scores": jnp.broadcast_to(jnp.zeros(beams).at[1:].set(apart), each),
        "lengths": jnp.zeros(each, jnp.int32),
        "stamp": jnp.full(each, vocabulary.stamps),
        "ended": jnp.zeros(each, bool),
        "step": jnp.int32(0),
    }

    def goes_on(state: dict[str, Any]) -> jax.Array:
        return (state["step"] < steps) & ~state["ended"].all()

    def advance(state: dict[str, Any]) -> dict[str, Any]:
        step = state["step"]
        chances = _chances(state, vocabulary)
        ended = jnp.where(jnp.arange(chances.shape[-1]) == vocabulary.end, 0.0, _NEVER)
        chances = jnp.where(state["ended"][..., None], ended, chances)

        def drawn() -> tuple[jax.Array, jax.Array, jax.Array]:
            token = jax.random.categorical(jax.random.fold_in(key, step), chances / jnp.maximum(temperature, 1e-3))
            score = state["scores"] + jnp.take_along_axis(chances, token[..., None], axis=-1)[..., 0]
            return jnp.broadcast_to(jnp.arange(beams), each), token.astype(jnp.int32), score

        def likeliest() -> tuple[jax.Array, jax.Array, jax.Array]:
            totals = (state["scores"][..., None] + chances).reshape(batch, -1)
            best, places = jax.lax.top_k(totals, beams)
            return places // chances.shape[-1], (places % chances.shape[-1]).astype(jnp.int32), best

        # A branch, for a random number for each token of the vocabulary is dear.
        origin, token, scores = jax.lax.cond(temperature > 0, drawn, likeliest)

        def of_origin(name: str) -> jax.Array:
            values = state[name]
            return jnp.take_along_axis(values, origin.reshape(*each, *(1,) * (values.ndim - 2)), axis=1)

        # Beams that go on from one and the same see what it saw: what was written stays where it is.
        slot = len(prompt) + step * beams
        own = jnp.arange(slots) == slot + jnp.arange(beams)[:, None]
        seen = of_origin("seen") | own
        ended = of_origin("ended") | (token == vocabulary.end)
        places = jnp.full(beams, len(prompt) + step)
        logits, cache, _ = model.decode(token, state["cache"], slot, places, seen)
        return {
            "cache": cache,
            "seen": seen,
            "logits": logits,
            "tokens": of_origin("tokens").at[:, :, step].set(token),
            "scores": scores,
            "lengths": of_origin("lengths") + ~ended,
            "stamp": jnp.where(token >= vocabulary.stamps, token, of_origin("stamp")),
            "ended": ended,
            "step": step + 1,
        }

    state = jax.lax.while_loop(goes_on, advance, state)
    means = state["scores"] / (state["lengths"] + 1)
    best = jnp.argmax(means, axis=1, keepdims=True)
    tokens = jnp.take_along_axis(state["tokens"], best[..., None], axis=1)[:, 0]
    lengths = jnp.take_along_axis(state["lengths"], best, axis=1)[:, 0]
    return Written(tokens, lengths, means.max(axis=1), no_speech)


def _chances(state: dict[str, Any], vocabulary: Vocabulary) -> jax.Array:
    """Log-probabilities `[batch, beams, tokens]` of what the rules allow, minus infinity elsewhere."""
    logits, step, tokens = state["logits"], state["step"], state["tokens"]
    numbers = jnp.arange(logits.shape[-1])
    is_stamp = numbers >= vocabulary.stamps
    last, before = (
        jnp.where(step >= back, jnp.take(tokens, jnp.maximum(step - back, 0), axis=-1), -1)[..., None]
        for back in (1, 2)
    )
    last_is_stamp = last >= vocabulary.stamps
    closes_pair = last_is_stamp & ((before >= vocabulary.stamps) | (step < 2))
    # After one of a pair only its other or the end of the text may come, and never an earlier time; text that begins
    # and ends at the same time is none.
    least = state["stamp"][..., None] + ~(last_is_stamp & ~closes_pair)
    least = jnp.where(step == 0, vocabulary.stamps, least)
    never = jnp.zeros(len(numbers), bool).at[jnp.array([vocabulary.no_stamps, *vocabulary.suppressed])].set(True)
    first = ~is_stamp | (numbers >= vocabulary.stamps + _FIRST_STAMPS)
    forbidden = (
        never
        | (closes_pair & is_stamp)
        | (last_is_stamp & ~closes_pair & (numbers < vocabulary.end))
        | (is_stamp & (numbers < least))
        | ((step == 0) & first)
    )
    chances = jax.nn.log_softmax(jnp.where(forbidden, _NEVER, logits))
    together = jax.nn.logsumexp(chances[..., vocabulary.stamps :], axis=-1, keepdims=True)
    likeliest = chances[..., : vocabulary.stamps].max(axis=-1, keepdims=True)
    only_stamps = jnp.where(is_stamp, chances - together, _NEVER)
    return jnp.where(together > likeliest, only_stamps, chances)
