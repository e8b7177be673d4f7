"""What all that write down speech have in common: the sounds they take and the segments they give."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.data.sound import SoundReader, open_sound
from zoo.errors import UserError
from zoo.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class Word:
    """A word with the punctuation around it, and its `start` and `end` in seconds."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """A sentence or a part of one.

    Attributes:
      start, end: in seconds.
      log_probability: the mean over the tokens of the window that it is part of, natural logarithm.
      doubtful: whether the model itself is unsure of it: noise, another language, or it repeats itself.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...]
    log_probability: float
    doubtful: bool


class Listener(Predictor, abc.ABC):
    """Writes down what is said; with few compiled programs, however long the sound.

    A sound is whatever `zoo.data.sound.open_sound` takes, a path, an address, bytes or a file object of a video or of
    sound alone; an open `SoundReader`; or float32 [samples] from -1 to 1, 16,000 a second.
    """

    def transcribe(self, sound: Any, *, prompt: str = "") -> list[Segment]:
        """All that is said, in order; empty where nobody speaks.

        Args:
          prompt: text in the style, and with the names, that are to be expected.

        Raises:
          UserError: the sound cannot be read, or there is none.
        """
        return [segment for _, segments in self.follow(sound, prompt=prompt) for segment in segments]

    def follow(self, sound: Any, *, prompt: str = "", begin: float = 0.0) -> Iterator[tuple[float, list[Segment]]]:
        """Yields (seconds up to which all is written down, the segments since) while the sound is read.

        No more than some minutes of it are in memory.

        Args:
          begin: seconds; what was written down before is left out.
        """
        if isinstance(sound, SoundReader):
            yield from self._follow(sound.samples(), prompt, begin)
        elif hasattr(sound, "__array__"):
            samples = np.asarray(sound)
            if samples.dtype != np.float32 or samples.ndim != 1:
                raise UserError(f"a sound is float32 [samples], not {samples.dtype} {list(samples.shape)}")
            yield from self._follow(iter([samples]), prompt, begin)
        else:
            with open_sound(sound) as reader:
                yield from self.follow(reader, prompt=prompt, begin=begin)

    @abc.abstractmethod
    def _follow(self, parts: Iterator[np.ndarray], prompt: str, begin: float) -> Iterator[tuple[float, list[Segment]]]:
        """`follow` of samples one after another, by a network of its own."""
