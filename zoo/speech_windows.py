"""Where in a sound somebody speaks, cut into pieces that a speech model hears at once."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from zoo.data.log_mel import SAMPLE_RATE

LONGEST = 30.0  # seconds of a window
_SPOKEN = 0.5  # the probability from which on a step counts as speech
_AROUND = 0.25  # seconds kept before and after speech
_PAUSE = 1.0  # seconds of silence that stay within a piece of speech
_LATE = 15.0  # seconds of a window after which speech without a pause may be cut, where it is most like silence


@dataclasses.dataclass(frozen=True)
class Window:
    """A piece of sound: float32 samples from `start` seconds on, `LONGEST` at most."""

    start: float
    samples: np.ndarray

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / SAMPLE_RATE


def windows(blocks: Iterable[np.ndarray], speech: Callable[[np.ndarray], np.ndarray], step: int) -> Iterator[Window]:
    """Windows with all that is spoken, one after another; no more than two windows and a block are in memory.

    Args:
      blocks: samples one after another, each but the last a multiple of `step` long.
      speech: probabilities of speech of a block's steps; called on each block in turn.
      step: samples of a step.
    """
    second = SAMPLE_RATE / step  # steps of one
    samples, chances, begin = np.zeros(0, np.float32), np.zeros(0), 0  # begin: steps that are gone already
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            samples, chances = np.concatenate([samples, block]), np.concatenate([chances, speech(block)])
        while (found := _first(chances, second, is_all=block is None)) is not None:
            first, last = found
            yield Window((begin + first) / second, samples[first * step : last * step])
            samples, chances, begin = samples[last * step :], chances[last:], begin + last
        spoken = np.flatnonzero(chances >= _SPOKEN)
        gone = max(0, (spoken[0] if len(spoken) else len(chances)) - int(_AROUND * second))
        samples, chances, begin = samples[gone * step :], chances[gone:], begin + gone


def _first(chances: np.ndarray, second: float, *, is_all: bool) -> tuple[int, int] | None:
    """The first window's steps, from and to; None if nobody speaks, or if what is still to come may belong to it."""
    around, pause, longest = (int(seconds * second) for seconds in (_AROUND, _PAUSE, LONGEST))
    spoken = np.flatnonzero(chances >= _SPOKEN)
    if not len(spoken):
        return None
    first = max(0, spoken[0] - around)
    # As far as this everything must be known, and nothing beyond has a say.
    horizon = first + longest + pause
    if len(chances) < horizon and not is_all:
        return None
    spoken = spoken[spoken < horizon]
    ends = np.append(spoken[np.flatnonzero(np.diff(spoken) > pause)], spoken[-1]) + 1
    fitting = ends[ends <= first + longest]
    if len(fitting):
        return first, int(min(fitting[-1] + around, first + longest, len(chances)))
    late = first + int(_LATE * second)
    return first, late + int(np.argmin(chances[late : first + longest])) + 1
