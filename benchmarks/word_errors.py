"""`python -m benchmarks.word_errors`: how many words `zoo transcribe` gets wrong, how fast.

On five LibriVox clips with transcripts (Debian's pocketsphinx-testdata), and on sentences, most of them Jane Austen's,
that espeak-ng speaks, clean and under white noise. Words are compared as by the authors of Whisper, after their
normalisation of English (Radford et al. 2022, appendix C); benchmarks/results/<device>-word-errors.csv keeps the table.
"""

import dataclasses
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jiwer
import numpy as np
from whisper_normalizer.english import EnglishTextNormalizer

import zoo
from benchmarks import on_device, tables
from zoo import command_line, download, hub
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.sound import open_sound
from zoo.errors import UserError

FIELDS = ("model", "sound", "clips", "words", "word error rate", "seconds of sound", "seconds", "times real time")
_PACKAGE, _FOLDER = "pocketsphinx-testdata", "usr/share/pocketsphinx/test/data/librivox"
_CLIPS = {  # what is said in them, from `transcription` beside them; "more a amiable" there is a slip
    "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power to "
    "do for them",
    "0880": "he was not an ill disposed young man",
    "0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
    "0920": "had he married a more amiable woman he might have been made still more respectable than he was",
    "0930": "he might even have been made amiable himself",
}
_SENTENCES = (
    "It is a truth universally acknowledged, that a single man must be in want of a wife.",
    "She was handsome, clever, and rich, with a comfortable home and happy disposition.",
    "There was no being displeased with such an encourager; for his admiration made him discern a likeness.",
    "The weather continued much the same all the following morning.",
    "They walked along the road in silence, and nobody saw them from the window.",
    "A few years before, he had been a very pretty boy, but now he was tall and thin.",
)
_VOICES = ("en-us", "en-gb", "en-us+f3", "en-gb-scotland")
_NOISE = (None, 20, 10, 0)  # decibels of speech above noise


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures word error rates."""

    model: str = "whisper_tiny_en"
    """A published model for transcription."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.word_errors")
    if not shutil.which("espeak-ng"):
        raise UserError("espeak-ng is not here; install it (Debian: apt install espeak-ng)")
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-word-errors.csv"
    table = tables.read(file, "model", "sound")
    transcriber = zoo.load(arguments.model)
    spoken = list(_spoken())
    sets = {"LibriVox": list(_librivox())}
    for noise in _NOISE:
        name = "espeak-ng" if noise is None else f"espeak-ng, noise at {noise} dB"
        sets[name] = [(_noisy(sound, noise, seed), text) for seed, (sound, text) in enumerate(spoken)]
    transcriber.transcribe(sets["LibriVox"][0][0])  # compiles
    for name, clips in sets.items():
        begun = time.perf_counter()
        heard = [" ".join(segment.text for segment in transcriber.transcribe(sound)) for sound, _ in clips]
        row = {"model": arguments.model, "sound": name, **figures(heard, [text for _, text in clips])}
        seconds, length = time.perf_counter() - begun, sum(len(sound) for sound, _ in clips) / SAMPLE_RATE
        row |= {"seconds of sound": f"{length:.1f}", "seconds": f"{seconds:.1f}"}
        row |= {"times real time": f"{length / seconds:.2f}"}
        table[row["model"], row["sound"]] = row
        print("  ".join(f"{field} {value}" for field, value in row.items()))
    header = f"short clips, each alone in a call that has room for four of 30 seconds, on {on_device.cpu_name()}"
    tables.write(file, header, FIELDS, table.values())


def figures(heard: list[str], said: list[str]) -> dict[str, str]:
    """The cells for what was heard of what was said, text by text."""
    normal = EnglishTextNormalizer()
    said, heard = [normal(text) for text in said], [normal(text) for text in heard]
    words = sum(len(text.split()) for text in said)
    return {"clips": str(len(said)), "words": str(words), "word error rate": f"{jiwer.wer(said, heard):.3f}"}


def _librivox() -> Iterator[tuple[np.ndarray, str]]:
    with tempfile.TemporaryDirectory() as folder:
        for number, text in _CLIPS.items():
            name = f"{_FOLDER}/sense_and_sensibility_01_austen_64kb-{number}.wav"
            by_hand = hub.cache_folder() / "downloads"
            path = download.member("deb", _PACKAGE, name, Path(folder), by_hand=by_hand)
            with open_sound(path) as sound:
                yield np.concatenate(list(sound.samples())), text


def _spoken() -> Iterator[tuple[np.ndarray, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        for voice in _VOICES:
            for sentence in _SENTENCES:
                subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", str(path), sentence], check=True)
                with open_sound(path) as sound:
                    yield np.concatenate(list(sound.samples())), sentence


def _noisy(sound: np.ndarray, decibels: int | None, seed: int) -> np.ndarray:
    if decibels is None:
        return sound
    noise = np.random.default_rng(seed).standard_normal(len(sound))
    noisy = sound + noise * np.sqrt(np.mean(np.square(sound)) * 10 ** (-decibels / 10))
    return (noisy / max(1.0, np.abs(noisy).max())).astype(np.float32)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.word_errors", main)
