"""Which digits and commands are said, and when: what `zoo.load("speech_ctc_commands")` gives."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.data.log_mel import BEFORE, SAMPLE_RATE, causal_log_mel
from zoo.errors import UserError
from zoo.listener import Listener, Segment, Word
from zoo.models.ctc_search import beam_search, lexicon_of, spikes
from zoo.registry import ModelCard
from zoo.tasks.speech import STEP

_AROUND, _MIDDLE = 66, 268  # steps of a window: what is heard before and after, about 2 s, and what is written down
_PAUSE = 27  # steps without a symbol after which a text is at an end: 0.8 s
_MARGIN = 9  # steps around a text that the search sees as well
_LONGEST = 400  # steps of a text: 12 s without a pause
_SYMBOLS = 150  # of a text at most
_STREAM_STEPS = 4  # of a stream's call: 0.12 s


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How a card's model is to be asked.

    Args:
      vocabulary: the words that it learnt, and writes.
      beams: texts that are followed at once.
      least_log_probability: a symbol's, below which a text is doubtful.
    """

    vocabulary: tuple[str, ...]
    beams: int = 16
    least_log_probability: float = -0.3


class Speller(Listener):
    """Writes down digits and commands; whatever else is said comes out as some of those, doubtful at best.

    The times of words are those at which the network is sure of their first and last letters, which is within them.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.model: Any
        self.preprocess = Spelling(**card.preprocessing)
        self._lexicon = lexicon_of(self.preprocess.vocabulary, card.labels)

    def stream(self) -> "SpeechStream":
        """Speech as it comes: `with speller.stream() as stream: print(stream.push(samples))`.

        Raises:
          UserError: the model wants to hear what comes after.
        """
        if not self.model.is_causal:
            way_out = "speech_ctc_commands_streaming does not"
            raise UserError(f"{self.card.name} wants to hear what comes after; {way_out}")
        return SpeechStream(self.model, self.labels)

    def _follow(self, parts: Iterator[np.ndarray], prompt: str, begin: float) -> Iterator[tuple[float, list[Segment]]]:
        if prompt:
            raise UserError(f"{self.card.name} takes no prompt: it knows {len(self.preprocess.vocabulary)} words only")
        first = round(begin * SAMPLE_RATE) // STEP  # the step that `held` begins with
        held, space = np.zeros((0, len(self.labels)), np.float32), self.labels.index(" ")
        for chances in itertools.chain(self._chances(_from(parts, first * STEP)), [None]):
            held = held if chances is None else np.concatenate([held, chances])
            segments = []
            while (found := first_text(held.argmax(axis=1), space, is_all=chances is None)) is not None:
                start, end = found
                behind = np.flatnonzero(held[end : end + _MARGIN].argmax(axis=1))
                seen = slice(max(0, start - _MARGIN), end + (int(behind[0]) if len(behind) else _MARGIN))
                segments += self._segments(held[seen], (first + seen.start) * STEP / SAMPLE_RATE)
                held, first = held[end:], first + end
            spoken = np.flatnonzero(held.argmax(axis=1))
            gone = max(0, spoken[0] - _MARGIN) if len(spoken) else len(held)
            held, first = held[gone:], first + gone
            yield first * STEP / SAMPLE_RATE, segments

    def _chances(self, parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Log-probabilities float32 [steps, symbols] of one piece of sound after another."""
        graph, weights = nnx.split(self.model)
        before, middle = BEFORE + _AROUND * STEP, _MIDDLE * STEP
        size = before + middle + _AROUND * STEP
        waiting = np.zeros(before, np.float32)
        for part in itertools.chain(parts, [None]):
            waiting = waiting if part is None else np.concatenate([waiting, part])
            while len(waiting) >= size or (part is None and len(waiting) > before):
                steps = min(_MIDDLE, -(-(len(waiting) - before) // STEP))
                window = np.pad(waiting[:size], (0, max(0, size - len(waiting))))
                chances = np.asarray(_heard(graph, weights, window[None])[0])
                yield chances[_AROUND : _AROUND + steps]
                waiting = waiting[middle:]

    def _segments(self, chances: np.ndarray, start: float) -> list[Segment]:
        """What is said in log-probabilities [steps, symbols], from `start` seconds on: one segment, or none."""
        steps = np.array([len(chances)])
        padded = np.pad(chances[None], ((0, 0), (0, _LONGEST + 2 * _MARGIN - len(chances)), (0, 0)))
        spelt = beam_search(padded, steps, self._lexicon, beams=self.preprocess.beams, longest=_SYMBOLS)
        symbols = np.asarray(spelt.symbols[0, 0])
        symbols = symbols[symbols > 0]
        text = "".join(self.labels[symbol] for symbol in symbols)
        if not text.strip() or not np.isfinite(spelt.log_probability[0, 0]):  # no text of words is likely at all
            return []
        times = start + spikes(chances, symbols) * STEP / SAMPLE_RATE
        words, place = [], 0
        for word in text.split(" "):
            if word:
                until = float(times[place + len(word) - 1]) + STEP / SAMPLE_RATE
                words.append(Word(word, float(times[place]), until))
            place += len(word) + 1
        certain = float(spelt.log_probability[0, 0]) / (len(symbols) + 1)
        doubtful = certain < self.preprocess.least_log_probability
        text = " ".join(word.text for word in words)
        return [Segment(text, words[0].start, words[-1].end, tuple(words), certain, doubtful)]


def first_text(best: np.ndarray, space: int, *, is_all: bool) -> tuple[int, int] | None:
    """The first text's steps, from its first symbol to behind its last; None if it is not at its end or there is none.

    A text ends at a pause, or if none comes for long at a space, or without one where it is most like a pause.

    Args:
      best: int [steps], the likeliest symbol of each step so far.
      space: the symbol between words.
      is_all: whether nothing follows.
    """
    spoken = np.flatnonzero(best)
    if not len(spoken):
        return None
    first = int(spoken[0])
    gaps = np.diff(spoken, append=len(best) + _PAUSE * is_all)
    fits = spoken < first + _LONGEST
    pauses = spoken[fits & (gaps >= _PAUSE)]
    if len(pauses):
        return first, int(pauses[0]) + 1
    if len(best) < first + _LONGEST + _PAUSE and not is_all:
        return None
    late = fits & (spoken >= first + _LONGEST // 2)
    spaces = spoken[late & (best[spoken] == space)]
    return first, int(spaces[-1] if len(spaces) else spoken[late][np.argmax(gaps[late])]) + 1


def _from(parts: Iterator[np.ndarray], sample: int) -> Iterator[np.ndarray]:
    for part in parts:
        yield part[sample:]
        sample = max(0, sample - len(part))


class SpeechStream:
    """What is said so far; `Speller.stream()` makes one. Memory and time a second do not grow.

    Attributes:
      text: all that was said, a line for what was said between two pauses.
    """

    def __init__(self, model: Any, labels: tuple[str, ...]):
        self.text = ""
        self._labels, self._model = labels, nnx.split(model)
        self._start = model.initial_state(1, jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param))))
        self._samples = np.zeros(BEFORE, np.float32)  # what belongs to the next frames
        self._begin_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._samples = self._samples[:0]

    def push(self, samples: np.ndarray) -> str:
        """Takes float32 [samples], 16,000 a second, and returns `text`, of which the last word may not be whole.

        The network takes a step at every 0.12 seconds.

        Raises:
          UserError: the samples are not float32 [samples].
        """
        samples = np.asarray(samples)
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise UserError(f"a sound is float32 [samples], not {samples.dtype} {list(samples.shape)}")
        self._samples = np.concatenate([self._samples, samples])
        size = _STREAM_STEPS * STEP
        while len(self._samples) >= BEFORE + size:
            chances, self._state = _along(*self._model, self._samples[None, : BEFORE + size], self._state)
            self._samples = self._samples[size:]
            for symbol in np.asarray(chances[0]).argmax(axis=-1):
                self._take(int(symbol))
        return self.text

    def _take(self, symbol: int) -> None:
        if symbol and symbol != self._last:
            self.text += self._labels[symbol]
        self._silent = 0 if symbol else self._silent + 1
        self._last = symbol
        if self._silent >= _PAUSE:
            self.text = f"{self.text.rstrip()}\n" if self.text.strip() else ""
            # The network learnt from sounds of some seconds: it never met what it may remember after hours.
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._state, self._last, self._silent = self._start, 0, 0


@functools.partial(jax.jit, static_argnames="graph")
def _heard(graph: nnx.GraphDef, weights: nnx.State, samples: jax.Array) -> jax.Array:
    model: Any = nnx.merge(graph, weights)
    precision = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)))
    logits = model(causal_log_mel(samples, model.num_mels).astype(precision))
    return jax.nn.log_softmax(logits.astype(jnp.float32))


@functools.partial(jax.jit, static_argnames="graph")
def _along(graph: nnx.GraphDef, weights: nnx.State, samples: jax.Array, state: Any) -> Any:
    model: Any = nnx.merge(graph, weights)
    precision = jnp.result_type(*jax.tree.leaves(state))
    return model.along(causal_log_mel(samples, model.num_mels).astype(precision), state)
