"""Transcripts: what is heard in a real clip, that nothing is invented, that a stopped run goes on, and mistakes."""

import io
import json
import shutil
import subprocess
import wave
from pathlib import Path

import jax
import numpy as np
import pytest

import zoo
from tests.clips import numbered, write_clip
from zoo import transcribe
from zoo.errors import UserError
from zoo.listener import Segment, Word
from zoo.speech_windows import Window
from zoo.transcriber import _left_out
from zoo.unfinished_transcript import UnfinishedTranscript

RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Three seconds of LibriVox, float32: "He was not an ill-disposed young man"."""
    with np.load(Path(__file__).parent / "golden" / "speech.npz") as arrays:
        return arrays["samples"].astype(np.float32) / 32768


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes((samples * 32767).astype(np.int16).tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def transcriber():
    return zoo.load("whisper_tiny_en")


@pytest.mark.slow
def test_what_is_said_and_when(transcriber, speech):
    """The clip at three places of 70 seconds, in two windows; then others' sounds by the same programs."""
    sound = np.zeros(70 * RATE, np.float32)
    for second in (5, 12, 60):
        sound[second * RATE : second * RATE + len(speech)] = speech
    segments = transcriber.transcribe(wav(sound))
    text = " ".join(segment.text for segment in segments)
    assert text.count("young man") == 3
    words = [word for segment in segments for word in segment.words]
    assert [word.text for word in words] == text.split()
    times = [word.start for word in words if word.text == "young"]
    np.testing.assert_allclose(np.array(times) - times[0], [0, 7, 55], atol=0.25)
    for segment in segments:
        assert segment.start <= segment.words[0].start + 0.3
        assert not segment.doubtful

    assert "young man" in transcriber.transcribe(speech)[0].text  # a program for one window
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    assert "young man" in transcriber.transcribe(np.append(speech, 0 * speech), prompt="")[0].text
    rest = transcriber.follow(wav(sound), begin=30.0)
    assert [segment.text.count("young man") for _, found in rest for segment in found] == [1]
    assert not [event for event in compiled if "backend_compile" in event]


@pytest.mark.slow
def test_nothing_is_invented(transcriber):
    rng = np.random.default_rng(0)
    times = np.arange(20 * RATE) / RATE
    chord = sum(
        0.1 * np.sin(2 * np.pi * pitch * times) * (np.sin(2 * np.pi * 2 * times) > 0) for pitch in (262, 330, 392)
    )
    sounds = {
        "silence": np.zeros(len(times)),
        "white noise": 0.3 * rng.standard_normal(10 * 60 * RATE),
        "hum": 0.5 * np.sin(2 * np.pi * 50 * times),
        "music": chord,
    }
    for name, sound in sounds.items():
        assert transcriber.transcribe(sound.astype(np.float32)) == [], name


def step(until: float) -> tuple[float, list[Segment]]:
    words = (Word("Grüße", until - 2, until - 1), Word("world", until - 1, until))
    return until, [Segment("Grüße world", until - 2, until, words, -0.25, doubtful=False)]


def test_a_stopped_transcript_goes_on(tmp_path: Path):
    out, what = tmp_path / "talk.srt", {"file": "talk.mp4", "prompt": ""}
    first = UnfinishedTranscript(out, what)
    assert (first.until, first.segments) == (0.0, [])
    for until in (30.0, 55.5):
        first.add(*step(until))
    kept = first.path.read_bytes()

    first.path.write_bytes(kept[:-20])  # killed while it wrote
    assert UnfinishedTranscript(out, what).until == 30.0
    first.path.write_bytes(kept)
    second = UnfinishedTranscript(out, what)
    assert (second.until, second.segments) == (55.5, [*step(30.0)[1], *step(55.5)[1]])
    second.add(*step(80.0))
    assert UnfinishedTranscript(out, what).until == 80.0

    assert UnfinishedTranscript(out, what | {"prompt": "names"}).segments == []
    second.finished()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("silent.mp4", "has no sound track; give a file with sound"),
        ("none.mp4", "none.mp4"),
        ("silent.mp4 --out talk.doc", "--out talk.doc names no format; end it in .srt, .vtt, .txt or .json"),
        ("silent.mp4 --out silent.mp4 --format srt", "would be written over what is read"),
        ("silent.mp4 --mux talk.webm", "cannot put subtitles into talk.webm"),
        ("silent.mp4 --burn talk.gif", "cannot write talk.gif"),
        ("silent.mp4 --model i3d_kinetics400", "i3d_kinetics400 is made for classification"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str):
    monkeypatch.chdir(tmp_path)
    write_clip("silent.mp4", numbered(5))
    with pytest.raises(UserError) as told:
        transcribe.main(words.split())
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["silent.mp4"]


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: np.ndarray, capsys):
    monkeypatch.chdir(tmp_path)
    Path("talk.wav").write_bytes(wav(speech))
    transcribe.main(["talk.wav", "--out", "talk.json"])
    (segment,) = json.loads(Path("talk.json").read_text(encoding="utf-8"))["segments"]
    assert "young man" in segment["text"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.json", "talk.wav"]
    transcribe.main(["talk.wav", "--format", "vtt"])
    assert capsys.readouterr().out.startswith("WEBVTT\n\n00:00:00.")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_another_language_is_marked(tmp_path: Path, capsys):
    german = (
        "Guten Tag, meine Damen und Herren. Heute sprechen wir über das Wetter und die schönen Berge in der Schweiz."
    )
    subprocess.run(["espeak-ng", "-v", "de", "-w", str(tmp_path / "de.wav"), german], check=True)
    transcribe.main([str(tmp_path / "de.wav"), "--out", str(tmp_path / "de.json")])
    segments = json.loads((tmp_path / "de.json").read_text(encoding="utf-8"))["segments"]
    assert segments
    assert all(segment["doubtful"] for segment in segments)
    words = [word for segment in segments for word in segment["text"].split()]
    assert len(set(words)) > len(words) / 2, "it repeats itself"
    told = capsys.readouterr().err
    assert f"unsure of {len(segments)} of {len(segments)} segments. It knows English only." in told


def test_speech_behind_the_last_word_is_listened_to_anew():
    """Not what is too short to be a sentence, not where nothing was written, and not without end."""
    samples = np.arange(10 * RATE, dtype=np.float32)
    window = Window(3.0, samples)

    def until(*ends: float) -> list[Segment]:
        return [Segment("so", 3.0, end, (), -0.1, False) for end in ends]

    (rest,) = _left_out((window, window, window, window), [until(4.0, 7.5), until(12.0), [], until(3.5)])
    assert (rest.start, rest.end) == (7.5, 13.0)
    np.testing.assert_array_equal(rest.samples, samples[round(4.5 * RATE) :])
