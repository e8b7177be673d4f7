"""Spoken words by speech synthesisers of this system, each said once and kept in the zoo's cache.

espeak-ng (espeak-ng.org) makes speech by formulas, in accents of English and voices that differ in formants, pitch and
breath; flite (Black and Lenzo 2001, cmuflite.org) out of recordings of few people. Both are Debian packages of the same
names, and no part of this project.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from zoo import hub
from zoo.data.log_mel import SAMPLE_RATE
from zoo.errors import UserError

ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
"""Of espeak-ng. Both splits have them all: what is held out is who speaks."""

SPEAKERS = (
    *("adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb"),
    *("david", "Denis", "Diogo", "ed", "edward", "Gene", "Gustave", "Henrique", "Hugo", "iven", "iven2", "iven3"),
    *("jacky", "john", "kaukovalta", "Lee", "linda", "marcelo", "Marco", "Mario", "max", "Michael", "michel", "miguel"),
    *("mike", "Nguyen", "pablo", "paul", "pedro", "quincy", "RicishayMax", "rob", "robert", "sandro", "shelby"),
    *("steph", "steph2", "steph3", "Storm", "travis", "victor", "zac", "anika", "f1", "f2", "f3", "f4", "f5"),
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "croak", "grandma", "grandpa", "klatt", "klatt2", "klatt4"),
    "norbert",
)
"""Voice variants of espeak-ng 1.51, without its robots, demons and whisperers."""

FLITE = {"train": ("kal16", "awb", "rms"), "test": ("slt",)}
"""Voices of flite 2.2 that say anything at 16,000 samples a second: three men learnt from, and a woman held out."""

PHRASE = (2, 3)  # words of what is said in one breath, beside single words
_HELD_OUT_EVERY = 5
_ACCENTS_A_SPEAKER = 2
_SPEED, _PITCH = (110, 190), (25, 75)  # words a minute; espeak-ng's scale, of which 50 is the voice's own
_STRETCH = (0.75, 1.25)  # of flite: how long a word takes in units of the voice's own time
_QUIET = 0.01  # of the loudest sample: what is quieter at both ends is cut off
_VERSION = 1  # of what is kept: a change of anything here makes it another


@dataclasses.dataclass(frozen=True)
class Saying:
    """What is said once: `words` with a blank between, by `voice` of the `synthesiser`, with further `settings`."""

    synthesiser: str
    voice: str
    words: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Speech:
    """Everything that a split's voices say.

    Attributes:
      samples: int16 [all samples], `SAMPLE_RATE` a second, one saying after another; a file that is mapped.
      ends: int64 [sayings], where each ends in it.
      words: of each saying.
      voices: for each voice, the numbers of its sayings: int [sayings of it].
    """

    samples: np.ndarray
    ends: np.ndarray
    words: tuple[str, ...]
    voices: tuple[np.ndarray, ...]

    def __getitem__(self, number: int) -> np.ndarray:
        """int16 [samples] of a saying."""
        return self.samples[self.ends[number - 1] if number else 0 : self.ends[number]]


def speakers(split: str) -> tuple[str, ...]:
    """espeak-ng's voices of "train" or "test", 63 and 12: held out by the SHA-256 of the name, about one in five.

    Voices that differ in their number alone, such as steph and steph2, are on the same side. The plain ones, m1 to m8
    and f1 to f5, sound different.
    """
    if split not in FLITE:
        raise UserError(f"no split of speech is called {split!r}; there are train, test")
    return tuple(name for name in SPEAKERS if _is_held_out(name) == (split == "test"))


def _is_held_out(name: str) -> bool:
    family = name.rstrip("0123456789")
    digest = hashlib.sha256((family if len(family) > 1 else name).encode()).hexdigest()
    return int(digest, 16) % _HELD_OUT_EVERY == 0


@functools.cache
def speech(split: str, vocabulary: tuple[str, ...], synthesisers: tuple[str, ...], most_speakers: int) -> Speech:
    """What a split's voices say: all words of the vocabulary, and as many phrases, each at its own speed and pitch.

    Said once, by two threads, and kept in the cache.

    Args:
      synthesisers: "espeak-ng", "flite" or both.
      most_speakers: of each synthesiser.

    Raises:
      UserError: a synthesiser is not installed, or the cache cannot be written.
    """
    sayings = [saying for name in synthesisers for saying in _SAYINGS[name](split, vocabulary, most_speakers)]
    versions = [_version(name) for name in synthesisers]
    said = json.dumps([_VERSION, versions, [dataclasses.astuple(saying) for saying in sayings]])
    folder = hub.cache_folder() / "speech" / hashlib.sha256(said.encode()).hexdigest()[:16]
    if not folder.is_dir():
        with hub.new_folder(folder, replace=False, way_out="set ZOO_CACHE to a folder that can be written") as new:
            new.mkdir()
            _say_all(sayings, new)
    voices: dict[tuple[str, str], list[int]] = {}
    for number, saying in enumerate(sayings):
        voices.setdefault((saying.synthesiser, saying.voice), []).append(number)
    return Speech(
        np.load(folder / "samples.npy", mmap_mode="r"),
        np.load(folder / "ends.npy"),
        tuple(saying.words for saying in sayings),
        tuple(np.array(numbers) for numbers in voices.values()),
    )


def _espeak_sayings(split: str, vocabulary: tuple[str, ...], most_speakers: int) -> list[Saying]:
    found = []
    for speaker in speakers(split)[:most_speakers]:
        rng = _drawn_for(speaker)
        for accent in rng.choice(ACCENTS, _ACCENTS_A_SPEAKER, replace=False):
            for words in _texts(vocabulary, rng):
                settings = "-s", str(rng.integers(*_SPEED)), "-p", str(rng.integers(*_PITCH))
                found.append(Saying("espeak-ng", f"{accent}+{speaker}", words, settings))
    return found


def _flite_sayings(split: str, vocabulary: tuple[str, ...], most_speakers: int) -> list[Saying]:
    found = []
    for speaker in FLITE[split][:most_speakers]:
        rng = _drawn_for(speaker)
        # There are few voices, so each says everything at several speeds.
        for words in [words for _ in range(4) for words in _texts(vocabulary, rng)]:
            settings = "--setf", f"duration_stretch={rng.uniform(*_STRETCH):.2f}"
            found.append(Saying("flite", speaker, words, settings))
    return found


_SAYINGS = {"espeak-ng": _espeak_sayings, "flite": _flite_sayings}


def _drawn_for(speaker: str) -> np.random.Generator:
    return np.random.default_rng(list(speaker.encode()))


def _texts(vocabulary: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """Each word alone, and as many phrases of words drawn at random."""
    phrases = [rng.choice(vocabulary, rng.integers(PHRASE[0], PHRASE[1] + 1)) for _ in vocabulary]
    return [*vocabulary, *(" ".join(phrase) for phrase in phrases)]


def _version(synthesiser: str) -> str:
    if not shutil.which(synthesiser):
        raise UserError(f"{synthesiser}, which speaks, is not here; install it (Debian: apt install {synthesiser})")
    return subprocess.run([synthesiser, "--version"], capture_output=True, text=True).stdout.partition("Data at")[0]


def _say_all(sayings: list[Saying], folder: Path) -> None:
    from rich.progress import track

    with tempfile.TemporaryDirectory() as place, concurrent.futures.ThreadPoolExecutor(2) as threads:
        sounds = threads.map(lambda pair: say(pair[1], Path(place) / f"{pair[0]}.wav"), enumerate(sayings))
        parts = list(track(sounds, "speaking, once", len(sayings), transient=True))
    np.save(folder / "samples.npy", np.concatenate(parts))
    np.save(folder / "ends.npy", np.cumsum([len(part) for part in parts]))


def say(saying: Saying, place: Path) -> np.ndarray:
    """int16 [samples], without the silence around it; `place` is a file to use meanwhile.

    Raises:
      UserError: the synthesiser does not have the voice.
    """
    options = {"espeak-ng": ("-v", "-w"), "flite": ("-voice", "-o")}[saying.synthesiser]
    text = ["-t", saying.words] if saying.synthesiser == "flite" else [saying.words]
    command = [saying.synthesiser, options[0], saying.voice, *saying.settings, options[1], str(place), *text]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not place.is_file():
        raise UserError(f"{saying.synthesiser} cannot speak as {saying.voice}: {done.stderr.strip()}")
    with wave.open(str(place)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    place.unlink()
    from scipy.signal import resample_poly  # half as long to import as all else that a training needs, most without it

    divisor = np.gcd(rate, SAMPLE_RATE)
    sound = resample_poly(samples.astype(np.float32), SAMPLE_RATE // divisor, rate // divisor)
    heard = np.flatnonzero(np.abs(sound) > _QUIET * np.abs(sound).max())
    return np.clip(sound[heard[0] : heard[-1] + 1], -32768, 32767).astype(np.int16)
