"""Digits and commands, one to five in a row, said by synthetic voices in rooms and noise that are drawn for each."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from zoo.data.log_mel import HOP, SAMPLE_RATE
from zoo.data.synthesised_speech import Speech, speech
from zoo.errors import UserError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = (
    *("yes", "no", "up", "down", "left", "right", "go", "stop", "on", "off", "open", "close", "start", "play", "pause"),
    *("record", "next", "back", "hello", "goodbye", "front", "rear", "side", "center", "first", "last"),
)
VOCABULARY = DIGITS + COMMANDS
"""What is said. The first ten commands and the digits are those of Speech Commands (Warden 2018, arXiv:1804.03209);
pause, record, hello, goodbye, front, rear, side, center, first and last are there because recordings of people who say
them are at hand (`benchmarks/spoken_words.py`)."""

SYMBOLS = ("", " ", *"abcdefghijklmnopqrstuvwxyz")
"""What a recogniser writes: nothing, which is the blank of CTC and here what fills up labels, a space, letters."""

SAMPLES = 408 * HOP  # of an item: 4.08 seconds
MOST_WORDS = 5
MOST_SYMBOLS = MOST_WORDS * max(map(len, VOCABULARY)) + MOST_WORDS - 1

_SILENT = 1 / 32  # share of items in which nobody speaks
_GAP = (0.02, 0.4)  # seconds between two sayings
_MARGIN = (0.05, 0.5)  # seconds before the first and behind the last
_FASTER = (0.85, 1.15)  # how much faster, and higher, than it was said
_LOUDNESS = (-30.0, -1.0)  # decibels of the loudest sample below full scale
_CLEAN = 0.1  # share of items without noise
_TILT, _BUMP = 3.0, 4.0  # standard deviations, decibels: of a microphone's slope an octave, and of its bumps
_TELEPHONE, _BAND = 0.15, (300.0, 3400.0)  # share of items that come through a telephone, and its band in hertz
_ROOM, _ECHO = 0.4, (0.05, 0.35)  # share of items in a room, and seconds in which its echo falls by 60 dB
_TRANSFORMED = 72_000  # samples: no less than those of an item and its echo, a product of small primes


@dataclasses.dataclass(frozen=True)
class SpokenCommands:
    """Random-access source of sounds and what is said in them; item i depends on (seed, split, i) alone.

    An item is `{"sound": int16 [SAMPLES], "samples": int32, "symbols": int32 [MOST_SYMBOLS]}`: 16,000 a second, of
    which the first `samples` are sound and the rest zeros, and numbers of `SYMBOLS`, words with a space between, filled
    up with 0. One to five words, as many as there is room for, are said by one voice in pieces of one to three. Now and
    then nobody speaks. The voices of the "test" split are not in the "train" split. What is said depends on the
    synthesiser's version as well.

    Args:
      synthesisers: "espeak-ng", "flite" or both; of both, half of the items each.
      decibels: least and greatest, of the words above white or pink noise.
      channel: whether microphones, telephones and rooms are drawn too.
      speakers: voices of each synthesiser, at most.
    """

    num_classes: ClassVar[int] = len(SYMBOLS)

    split: str
    synthesisers: tuple[str, ...] = ("espeak-ng",)
    decibels: tuple[float, float] = (5.0, 40.0)
    channel: bool = True
    speakers: int = 1000
    seed: int = 0
    length: int = 2**31 - 1

    def __post_init__(self):
        if unknown := set(self.synthesisers) - {"espeak-ng", "flite"}:
            raise UserError(f"no synthesiser is called {', '.join(sorted(unknown))}; there are espeak-ng, flite")
        # Before the loader's threads ask for it at the same time.
        self._speech  # noqa: B018

    @functools.cached_property
    def _speech(self) -> tuple[Speech, ...]:
        return tuple(speech(self.split, VOCABULARY, (name,), self.speakers) for name in self.synthesisers)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.split == "test", index])
        said = self._speech[rng.integers(len(self._speech))]
        wanted = 0 if rng.random() < _SILENT else int(rng.integers(1, MOST_WORDS + 1))
        sound, words = _sentence(rng, said, said.voices[rng.integers(len(said.voices))], wanted)
        if self.channel:
            sound = _through_channel(rng, sound)
        sound = sound + _noise(rng, sound, self.decibels)
        sound *= 10 ** (rng.uniform(*_LOUDNESS) / 20) / max(np.abs(sound).max(), 1e-9)
        symbols = np.zeros(MOST_SYMBOLS, np.int32)
        text = " ".join(words)
        symbols[: len(text)] = [SYMBOLS.index(letter) for letter in text]
        filled = np.zeros(SAMPLES, np.int16)
        filled[: len(sound)] = np.round(sound * 32767)
        return {"sound": filled, "samples": np.int32(len(sound)), "symbols": symbols}


def text_of(symbols: np.ndarray) -> str:
    """The words of int `[N]` numbers of `SYMBOLS`."""
    return "".join(SYMBOLS[symbol] for symbol in symbols)


def _sentence(rng: np.random.Generator, said: Speech, voice: np.ndarray, wanted: int) -> tuple[np.ndarray, list[str]]:
    """float32 [samples] of at most `SAMPLES`, and the words in it."""
    faster = rng.uniform(*_FASTER)
    before, behind = (int(rng.uniform(*_MARGIN) * SAMPLE_RATE) for _ in range(2))
    sound = np.zeros(SAMPLES, np.float32)
    end, words = before, []
    while len(words) < wanted:
        number = int(voice[rng.integers(len(voice))])
        new, samples = said.words[number].split(), said[number]
        count = int(len(samples) / faster)
        start = end + int(rng.uniform(*_GAP) * SAMPLE_RATE) * bool(words)
        if start + count + behind > SAMPLES:
            break
        if len(words) + len(new) > wanted:
            continue  # there are single words to draw
        # Linear interpolation is a microphone that hears high pitches a little less, which is as well.
        sound[start : start + count] = np.interp(np.arange(count) * faster, np.arange(len(samples)), samples) / 32768
        end, words = start + count, [*words, *new]
    length = end + behind if words else int(rng.integers(SAMPLE_RATE, SAMPLES))
    return sound[:length], words


def _through_channel(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """As a microphone that colours it hears it, perhaps through a telephone, perhaps in a room."""
    octaves = _octaves()
    bumps = np.interp(octaves, np.linspace(octaves[0], octaves[-1], 8), rng.normal(0, _BUMP, 8))
    decibels = np.clip(rng.normal(0, _TILT), -6, 6) * octaves + bumps
    if rng.random() < _TELEPHONE:
        low, high = np.log2(np.array(_BAND) / 1000)
        decibels -= 50.0 * ((octaves < low) | (octaves > high))
    gains = np.exp((decibels * (np.log(10) / 20)).astype(np.float32))
    if rng.random() < _ROOM:
        seconds = rng.uniform(*_ECHO)
        times = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
        echo = rng.standard_normal(len(times), np.float32) * np.exp(-np.float32(3 * np.log(10) / seconds) * times)
        echo *= np.float32(rng.uniform(0.1, 0.7)) / np.linalg.norm(echo)
        echo[0] = 1.0
        gains = gains * np.fft.rfft(echo, _TRANSFORMED)
    return np.fft.irfft(np.fft.rfft(sound, _TRANSFORMED) * gains, _TRANSFORMED)[: len(sound)]


@functools.cache
def _octaves() -> np.ndarray:
    """Of the transforms' frequencies above 1,000 Hz; what is below 50 Hz is as if it were that."""
    return np.log2(np.maximum(np.fft.rfftfreq(_TRANSFORMED, 1 / SAMPLE_RATE), 50) / 1000)


@functools.cache
def _pink() -> np.ndarray:
    """Of the transforms' frequencies, the amplitude of noise whose power is the same in every octave."""
    return 1 / np.sqrt(np.maximum(np.arange(_TRANSFORMED // 2 + 1, dtype=np.float32), 1))


def _noise(rng: np.random.Generator, sound: np.ndarray, decibels: tuple[float, float]) -> np.ndarray:
    """White or pink noise, so many decibels quieter than the words; alone, of any loudness."""
    if rng.random() < _CLEAN:
        return np.zeros_like(sound)
    noise = rng.standard_normal(len(sound), np.float32)
    if rng.random() < 0.5:
        noise = np.fft.irfft(np.fft.rfft(noise, _TRANSFORMED) * _pink(), _TRANSFORMED)[: len(sound)]
        noise /= np.std(noise)
    spoken = np.abs(sound) > 0.01 * np.abs(sound).max()
    power = np.mean(np.square(sound[spoken])) if spoken.any() else 1.0
    return noise * np.float32(np.sqrt(power * 10 ** (-rng.uniform(*decibels) / 10)))
