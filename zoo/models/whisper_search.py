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
    cache = model.remember(encoded, len(prompt) + steps)
    logits, cache, _ = model.decode(jnp.tile(prompt, (batch, 1)), cache, jnp.int32(0))
    start = len(prompt) - 1 - jnp.argmax(prompt[::-1] == vocabulary.start)
    no_speech = jax.nn.softmax(logits[:, start])[:, vocabulary.no_speech]
    rows = batch * beams
    cache = jax.tree.map(lambda values: jnp.repeat(values, beams, axis=2), cache)
    # All beams are the same in the beginning: only the first may go on.
    apart = jnp.where(temperature > 0, 0.0, _NEVER)
    state = {
        "cache": cache,
        "logits": jnp.repeat(logits[:, -1], beams, axis=0),
        "tokens": jnp.full((rows, steps), vocabulary.end),
        "scores": jnp.tile(jnp.zeros(beams).at[1:].set(apart), batch),
        "lengths": jnp.zeros(rows, jnp.int32),
        "stamp": jnp.full(rows, vocabulary.stamps),
        "ended": jnp.zeros(rows, bool),
        "step": jnp.int32(0),
    }

    def goes_on(state: dict[str, Any]) -> jax.Array:
        return (state["step"] < steps) & ~state["ended"].all()

    def advance(state: dict[str, Any]) -> dict[str, Any]:
        step = state["step"]
        chances = jax.nn.log_softmax(_allowed(state, vocabulary))
        ended = jnp.full_like(chances, _NEVER).at[:, vocabulary.end].set(0.0)
        chances = jnp.where(state["ended"][:, None], ended, chances)
        drawn = jax.random.categorical(jax.random.fold_in(key, step), chances / jnp.maximum(temperature, 1e-3))
        totals = (state["scores"][:, None] + chances).reshape(batch, -1)
        best, places = jax.lax.top_k(totals, beams)
        kept = places // chances.shape[1] + jnp.arange(batch)[:, None] * beams
        is_drawn = temperature > 0
        origin = jnp.where(is_drawn, jnp.arange(rows), kept.reshape(rows))
        token = jnp.where(is_drawn, drawn, (places % chances.shape[1]).reshape(rows)).astype(jnp.int32)
        drawn_scores = state["scores"] + jnp.take_along_axis(chances, drawn[:, None], axis=1)[:, 0]
        scores = jnp.where(is_drawn, drawn_scores, best.reshape(rows))

        def reordered(values: jax.Array) -> jax.Array:
            return values if beams == 1 else values[origin]

        ended = reordered(state["ended"]) | (token == vocabulary.end)
        written = state["cache"]["written"]
        cache = state["cache"] | {"written": written if beams == 1 else written[:, :, origin]}
        logits, cache, _ = model.decode(token[:, None], cache, len(prompt) + step)
        return {
            "cache": cache,
            "logits": logits[:, 0],
            "tokens": reordered(state["tokens"]).at[:, step].set(token),
            "scores": scores,
            "lengths": reordered(state["lengths"]) + ~ended,
            "stamp": jnp.where(token >= vocabulary.stamps, token, reordered(state["stamp"])),
            "ended": ended,
            "step": step + 1,
        }

    state = jax.lax.while_loop(goes_on, advance, state)
    means = (state["scores"] / (state["lengths"] + 1)).reshape(batch, beams)
    chosen = jnp.argmax(means, axis=1) + jnp.arange(batch) * beams
    return Written(state["tokens"][chosen], state["lengths"][chosen], means.max(axis=1), no_speech)


def _allowed(state: dict[str, Any], vocabulary: Vocabulary) -> jax.Array:
    """The logits `[rows, tokens]` with minus infinity where the rules allow nothing."""
    logits, step, tokens = state["logits"], state["step"], state["tokens"]
    numbers = jnp.arange(logits.shape[1])
    is_stamp = numbers >= vocabulary.stamps
    last, before = (
        jnp.where(step >= back, jnp.take(tokens, jnp.maximum(step - back, 0), axis=1), -1) for back in (1, 2)
    )
    last_is_stamp = last >= vocabulary.stamps
    closes_pair = last_is_stamp & ((before >= vocabulary.stamps) | (step < 2))
    # After one of a pair only its other or the end of the text may come, and never an earlier time; text that begins
    # and ends at the same time is none.
    least = state["stamp"] + ~(last_is_stamp & ~closes_pair)
    least = jnp.where(step == 0, vocabulary.stamps, least)
    never = jnp.zeros(len(numbers), bool).at[jnp.array([vocabulary.no_stamps, *vocabulary.suppressed])].set(True)
    first = ~is_stamp | (numbers >= vocabulary.stamps + _FIRST_STAMPS)
    forbidden = (
        never
        | (closes_pair[:, None] & is_stamp)
        | ((last_is_stamp & ~closes_pair)[:, None] & (numbers < vocabulary.end))
        | (is_stamp & (numbers < least[:, None]))
        | ((step == 0) & first)
    )
    logits = jnp.where(forbidden, _NEVER, logits)
    chances = jax.nn.log_softmax(logits)
    together = jax.nn.logsumexp(jnp.where(is_stamp, chances, _NEVER), axis=1)
    likeliest = jnp.where(is_stamp, _NEVER, chances).max(axis=1)
    return jnp.where((together > likeliest)[:, None] & ~is_stamp, _NEVER, logits)
