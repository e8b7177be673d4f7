"""What is said in a sound, and when: what `zoo.load("whisper_tiny_en")` gives."""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx

from zoo import hub, registry
from zoo.data.log_mel import SAMPLE_RATE, SECONDS, log_mel
from zoo.data.sound import blocks
from zoo.listener import Listener, Segment, Word
from zoo.models.whisper_search import Vocabulary, Written, search
from zoo.predictor import load
from zoo.registry import ModelCard
from zoo.speech_windows import Window, windows
from zoo.word_times import token_starts

STAMP_SECONDS = 0.02  # between one time stamp's token and the next
_STEPS = 224  # tokens that are written for a window at most, as the published code does
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried in turn until a text is not doubtful
_LEAST_WRITTEN, _LEAST_LEFT = 1.0, 1.5  # seconds of a window, for the rest of it to be listened to anew
_BLOCK_SECONDS = 32  # of sound that the voice detector hears at a time


@dataclasses.dataclass(frozen=True)
class Hearing:
    """How a card's model is to be asked.

    Args:
      tokens: ids of "end", "start", "previous", "no_speech", "no_stamps" and "stamps" (0.00 seconds).
      suppressed: ids of what is never written.
      alignment_heads: (layer, head) of the decoder's attention that follows the text.
      tokenizer: a file as the library `tokenizers` reads it, kept beside the weights of `tokenizer_of`.
      tokenizer_of: the published model that the tokenizer comes with.
      voice_detector: the published model that finds where somebody speaks.
      beams: texts that are followed at once.
      windows_a_call: windows that go through one compiled call at most.
      most_compression: how much shorter zlib may make a text; one that repeats itself gets shorter.
      least_log_probability: below it a text is doubtful.
      most_no_speech: above it, a doubtful text is taken for silence.
    """

    tokens: dict[str, int]
    suppressed: list[int]
    alignment_heads: list[list[int]]
    tokenizer: str
    tokenizer_of: str
    voice_detector: str = "silero_vad"
    beams: int = 5
    windows_a_call: int = 4
    most_compression: float = 2.4
    least_log_probability: float = -1.0
    most_no_speech: float = 0.6


class Transcriber(Listener):
    """Whisper: writes down what is said, with the times of words."""

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.model: Any
        self.preprocess = Hearing(**card.preprocessing)
        tokenizer = hub.kept_file(registry.card(self.preprocess.tokenizer_of), self.preprocess.tokenizer)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        suppressed = (
            *self.preprocess.suppressed,
            *(self.preprocess.tokens[name] for name in ("start", "previous", "no_speech")),
        )
        self._vocabulary = Vocabulary(**self.preprocess.tokens, suppressed=suppressed)

    def _follow(self, parts: Iterator[np.ndarray], prompt: str, begin: float) -> Iterator[tuple[float, list[Segment]]]:
        ids = self._prompt(prompt)
        heard = windows(blocks(parts, _BLOCK_SECONDS * SAMPLE_RATE), self._voice_detector(), self._voice.window)
        wanted = (window for window in heard if window.start >= begin)
        for several in itertools.batched(wanted, self.preprocess.windows_a_call):
            end, segments = several[-1].end, []
            while several:
                found = self._written_down(several, ids)
                segments += itertools.chain.from_iterable(found)
                several = _left_out(several, found)
            yield end, sorted(segments, key=lambda segment: segment.start)

    @functools.cached_property
    def _voice(self) -> Any:
        return load(self.preprocess.voice_detector).model

    def _voice_detector(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function of one block after another that gives each step's probability of speech, and remembers."""
        graph, weights = nnx.split(self._voice)
        state = self._voice.initial_state(1, np.float32)

        def speech(block: np.ndarray) -> np.ndarray:
            nonlocal state
            size = _BLOCK_SECONDS * SAMPLE_RATE
            filled = np.pad(block, (0, size - len(block)))
            chances, state = _chances_of_speech(graph, weights, filled[None], state)
            return np.asarray(chances[0])[: -(-len(block) // self._voice.window)]

        return speech

    def _prompt(self, text: str) -> np.ndarray:
        """int32 ids before the transcript: of the prompt's end, if there is one, and the start."""
        start, previous = self._vocabulary.start, self._vocabulary.previous
        ids = self.tokenizer.encode(f" {text.strip()}", add_special_tokens=False).ids if text.strip() else []
        most = self.model.text_context - _STEPS - 2
        return np.array([previous, *ids[-most:], start] if ids else [start], np.int32)

    def _written_down(self, several: tuple[Window, ...], prompt: np.ndarray) -> list[list[Segment]]:
        """The segments of each window."""
        graph, weights = nnx.split(self.model)
        samples = np.zeros((_room(len(several)), SECONDS * SAMPLE_RATE), np.float32)
        # What is left of the room hears the same once more: of silence the network may write more than of speech.
        for row, window in zip(samples, itertools.cycle(several), strict=False):
            row[: len(window.samples)] = window.samples
        encoded = _encode(graph, weights, samples)
        best: list[tuple[list[int], float, float] | None] = [None] * len(several)
        for attempt, temperature in enumerate(_TEMPERATURES):
            missing = [place for place, found in enumerate(best) if found is None or self._is_doubtful(found)]
            if not missing:
                break
            is_some = len(missing) < len(several)
            found = _search(
                graph,
                weights,
                encoded[np.resize(missing, _room(len(missing)))] if is_some else encoded,
                prompt,
                np.float32(temperature),
                jax.random.key(attempt),
                vocabulary=self._vocabulary,
                beams=self.preprocess.beams,
            )
            for row, place in enumerate(missing):
                new = _of_window(found, row)
                old = best[place]
                if old is None or self._worth(new) > self._worth(old):
                    best[place] = new
        texts = [[] if self._is_silence(found) else found[0] for found in best if found is not None]
        starts = self._token_starts(graph, weights, encoded, texts, several)
        return [
            [] if found is None else list(self._segments(window, ids, times, found[1], self._is_doubtful(found)))
            for window, found, ids, times in zip(several, best, texts, starts, strict=True)
        ]

    def _is_doubtful(self, found: tuple[list[int], float, float]) -> bool:
        return self._repeats(found) or found[1] < self.preprocess.least_log_probability

    def _repeats(self, found: tuple[list[int], float, float]) -> bool:
        text = self._text(found[0]).encode()
        return bool(text) and len(text) / len(zlib.compress(text)) > self.preprocess.most_compression

    def _worth(self, found: tuple[list[int], float, float]) -> tuple[bool, bool, float]:
        """By which the better of two texts is known: a text that repeats itself is likely, and still the worse one."""
        return not self._is_doubtful(found), not self._repeats(found), found[1]

    def _is_silence(self, found: tuple[list[int], float, float]) -> bool:
        wanted = self.preprocess
        return found[2] > wanted.most_no_speech and found[1] < wanted.least_log_probability

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode([token for token in ids if token < self._vocabulary.end])

    def _token_starts(
        self, graph: Any, weights: Any, encoded: jax.Array, texts: list[list[int]], several: tuple[Window, ...]
    ) -> list[np.ndarray]:
        """Of each window the seconds at which its words' tokens begin, and those at which the last one ends."""
        vocabulary = self._vocabulary
        words = [[token for token in ids if token < vocabulary.end] for ids in texts]
        tokens = np.full((len(encoded), _STEPS + 2), vocabulary.end, np.int32)
        tokens[:, :2] = vocabulary.start, vocabulary.no_stamps
        for row, ids in zip(tokens, words, strict=False):
            row[2 : 2 + len(ids)] = ids
        heads = tuple(tuple(head) for head in self.preprocess.alignment_heads)
        looked = np.asarray(_look(graph, weights, encoded, tokens, heads=heads))
        second = self.model.audio_context / SECONDS
        starts = []
        for window, ids, of_window in zip(several, words, looked, strict=False):
            steps = max(1, round(len(window.samples) / SAMPLE_RATE * second))
            # Each token is said where the model looks while it has read no more than the one before.
            rows = of_window[:, 1 : len(ids) + 2]
            starts.append(token_starts(rows, steps) / second if ids else np.zeros(1))
        return starts

    def _segments(
        self, window: Window, ids: list[int], starts: np.ndarray, log_probability: float, doubtful: bool
    ) -> Iterator[Segment]:
        stamps = self._vocabulary.stamps
        begin, held, number = 0.0, [], 0
        for token in [*ids, stamps + round((window.end - window.start) / STAMP_SECONDS)]:
            if token < stamps:
                held.append(token)
                continue
            time = min((token - stamps) * STAMP_SECONDS, window.end - window.start)
            if text := self._text(held).strip():
                words = self._words(held, window.start + starts[number : number + len(held) + 1])
                yield Segment(text, window.start + begin, window.start + time, words, log_probability, doubtful)
            begin, number, held = time, number + len(held), []

    def _words(self, ids: list[int], starts: np.ndarray) -> tuple[Word, ...]:
        """Tokens together as words: each begins with a space, and what follows without one belongs to it."""
        words, first = [], 0
        for end in range(1, len(ids) + 1):
            text = self.tokenizer.decode(ids[first:end])
            follows = self.tokenizer.decode(ids[end : end + 1]) if end < len(ids) else " "
            if text.strip() and follows.startswith(" ") and "\ufffd" not in text:
                words.append(Word(text.strip(), float(starts[first]), float(starts[end])))
                first = end
        return tuple(words)


def _left_out(several: tuple[Window, ...], found: list[list[Segment]]) -> tuple[Window, ...]:
    """What is left of windows behind the last word that was written: at pauses the model may stop too early.

    A window ends with speech, by the voice detector. One of which nothing was written is silence or noise.
    """
    rest = []
    for window, segments in zip(several, found, strict=True):
        end = segments[-1].end if segments else window.end
        if end - window.start >= _LEAST_WRITTEN and window.end - end >= _LEAST_LEFT:
            samples = window.samples[round((end - window.start) * SAMPLE_RATE) :]
            rest.append(Window(window.end - len(samples) / SAMPLE_RATE, samples))
    return tuple(rest)


def _room(windows: int) -> int:
    """Windows of a compiled call that has room for so many: a power of two, so that few programs serve all numbers."""
    return 1 << (windows - 1).bit_length()


def _of_window(found: Written, place: int) -> tuple[list[int], float, float]:
    """Tokens, mean log-probability and probability of silence."""
    tokens = found.tokens[place][: found.lengths[place]].tolist()
    return tokens, float(found.log_probability[place]), float(found.no_speech[place])


@functools.partial(jax.jit, static_argnames="graph")
def _encode(graph: nnx.GraphDef, weights: nnx.State, samples: jax.Array) -> jax.Array:
    model: Any = nnx.merge(graph, weights)
    precision = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)))
    return model.encode(log_mel(samples, model.num_mels).astype(precision))


@functools.partial(jax.jit, static_argnames=("graph", "vocabulary", "beams"))
def _search(graph: nnx.GraphDef, weights: nnx.State, *inputs: jax.Array, vocabulary: Vocabulary, beams: int) -> Written:
    return search(nnx.merge(graph, weights), *inputs, vocabulary=vocabulary, beams=beams, steps=_STEPS)


@functools.partial(jax.jit, static_argnames=("graph", "heads"))
def _look(
    graph: nnx.GraphDef,
    weights: nnx.State,
    encoded: jax.Array,
    tokens: jax.Array,
    *,
    heads: tuple[tuple[int, int], ...],
) -> jax.Array:
    """Attention float32 `[B, heads, tokens, steps]` of the heads that follow the text."""
    model: Any = nnx.merge(graph, weights)
    _, _, looked = model.decode(tokens, model.remember(encoded, tokens.shape[1]), jnp.int32(0))
    layers, numbers = np.array(heads).T
    return looked[layers, :, numbers].swapaxes(0, 1)


@functools.partial(jax.jit, static_argnames="graph")
def _chances_of_speech(graph: nnx.GraphDef, weights: nnx.State, samples: jax.Array, state: Any) -> Any:
    model: Any = nnx.merge(graph, weights)
    logits, state = model.along(samples, state)
    return jax.nn.sigmoid(logits), state
