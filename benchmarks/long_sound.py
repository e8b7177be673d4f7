"""`python -m benchmarks.long_sound`: hours of sound through `zoo transcribe`, in how much memory and time.

A sentence of LibriVox every half minute, in faint noise; the longest sound is stopped by kill -9 on its way and gone on
with. Then ten minutes without speech: noise, hum, music and rain, of which nothing may be written.
benchmarks/results/<device>-long-sound.csv keeps the table.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import on_device, tables
from benchmarks.word_errors import librivox
from zoo import command_line
from zoo.data.log_mel import SAMPLE_RATE
from zoo.errors import UserError

FIELDS = ("model", "sound", "minutes", "sentences", "sentences found", "seconds", "times real time", "memory in MB")
_EVERY = 30  # seconds from one sentence to the next
_FAINT = 0.001
_LENGTHS = (10, 180)  # minutes
_QUIET_MINUTES = 10
_KNOWN = "young man"  # is in the sentence, and was heard right in it


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures long sounds."""

    model: str = "whisper_tiny_en"
    """A published model for transcription."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.long_sound")
    (sentence,) = (sound for sound, text in librivox() if _KNOWN in text)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for minutes in _LENGTHS:
            is_stopped = minutes == _LENGTHS[-1]
            file = _written(folder / "talk.wav", _talk(sentence, minutes))
            told = _transcribed(arguments.model, file, is_stopped=is_stopped)
            count = minutes * 60 // _EVERY
            what = f"a sentence every {_EVERY} s" + (", killed once and gone on with" if is_stopped else "")
            rows.append(_row(arguments.model, what, minutes, count, told))
        for what, sound in _without_speech(_QUIET_MINUTES):
            file = _written(folder / "quiet.wav", iter([sound]))
            rows.append(_row(arguments.model, what, _QUIET_MINUTES, 0, _transcribed(arguments.model, file)))
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-long-sound.csv"
    header = f"the command from its start to its end, the most memory of its process, on {on_device.cpu_name()}"
    tables.write(file, header, FIELDS, rows)


@dataclasses.dataclass(frozen=True)
class _Told:
    texts: list[str]
    seconds: float
    memory: int


def _row(model: str, sound: str, minutes: int, sentences: int, told: _Told) -> dict[str, str]:
    found = sum(text.count(_KNOWN) for text in told.texts) if sentences else len(told.texts)
    values = (model, sound, minutes, sentences, found, f"{told.seconds:.0f}", f"{minutes * 60 / told.seconds:.1f}")
    row: dict[str, str] = dict(zip(FIELDS, (*map(str, values), str(told.memory)), strict=True))
    print("  ".join(f"{field} {value}" for field, value in row.items()), flush=True)
    return row


def _transcribed(model: str, file: Path, *, is_stopped: bool = False) -> _Told:
    out = file.with_suffix(".json")
    command = [sys.executable, "-m", "zoo.transcribe", str(file), "--out", str(out), "--model", model]
    begun = time.perf_counter()
    if is_stopped:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        # Half a minute after its beginning it has written something down.
        time.sleep(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"zoo transcribe failed: {told.splitlines()[-1]}")
    if is_stopped and "going on after" not in told:
        raise UserError("the second run began anew")
    segments = json.loads(out.read_text(encoding="utf-8"))["segments"]
    out.unlink()
    seconds = time.perf_counter() - begun
    return _Told([segment["text"] for segment in segments], seconds, usage.ru_maxrss // 1024)


def _written(path: Path, parts: Iterator[np.ndarray]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for part in parts:
            file.writeframes((np.clip(part, -1, 1) * 32767).astype(np.int16).tobytes())
    return path


def _talk(sentence: np.ndarray, minutes: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(minutes * 60 // _EVERY):
        part = _FAINT * rng.standard_normal(_EVERY * SAMPLE_RATE)
        begin = rng.integers(0, len(part) - len(sentence))
        part[begin : begin + len(sentence)] += sentence
        yield part


def _without_speech(minutes: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    times = np.arange(minutes * 60 * SAMPLE_RATE) / SAMPLE_RATE
    white = rng.standard_normal(len(times))
    yield "white noise", 0.3 * white
    yield "hum", 0.5 * np.sin(2 * np.pi * 50 * times)
    notes = 220 * 2 ** (rng.integers(0, 24, len(times) // SAMPLE_RATE * 2 + 1) / 12)
    pitch = notes[(times * 2).astype(int)]
    chord = sum(np.sin(2 * np.pi * np.cumsum(part * pitch) / SAMPLE_RATE) for part in (1, 1.25, 1.5))
    yield "music of sines", 0.1 * chord * (1 - times * 2 % 1)
    drops = white * (rng.random(len(times)) < 0.001)
    yield "rain", 0.1 * white * 0.2 + 0.8 * drops


if __name__ == "__main__":
    command_line.run("python -m benchmarks.long_sound", main)
