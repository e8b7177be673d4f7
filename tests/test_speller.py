"""Speech commands written down: what, when, across windows and pauses, and as a stream."""

import io
import itertools
import wave

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from zoo import registry, transcribe
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.spoken_commands import SYMBOLS
from zoo.errors import UserError
from zoo.models.speech_ctc import STRIDE
from zoo.registry import WeightSource
from zoo.speller import Speller, first_text

LETTER = 0.12  # seconds of a letter's tone
TONES = {symbol: 300 + 120 * number for number, symbol in enumerate(SYMBOLS[1:])}


class ToneReader(nnx.Module):
    """A recogniser of a language whose letters are tones, each its own band of pitch."""

    is_causal, num_mels = True, 80

    def __init__(self):
        self.bands = nnx.Param(jnp.asarray(spectra()))

    def initial_state(self, batch, dtype):
        return {"steps": jnp.zeros((batch,), dtype)}

    def along(self, x, state):
        return self(x), {"steps": state["steps"] + x.shape[1]}

    def __call__(self, x):
        steps = x.reshape(len(x), -1, STRIDE, x.shape[-1]).mean(axis=2)
        distances = jnp.square(steps[:, :, None] - self.bands[...]).mean(axis=-1)
        # Where a tone begins or ends, in the middle of a step, it is not told yet.
        is_quiet = steps.max(axis=-1) < self.bands[...].max(axis=-1)[1:].min() - 0.1
        blank = jnp.where(is_quiet, 50.0, -50.0)[..., None]
        return jnp.concatenate([blank, -200 * distances[..., 1:]], axis=-1)


def tone(symbol: str, seconds: float = LETTER) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (
        (0.3 * np.sin(2 * np.pi * TONES[symbol] * times)).astype(np.float32) if symbol else 0 * times.astype(np.float32)
    )


def spectra() -> np.ndarray:
    """What each symbol is like in the middle of its tone; silence is the blank."""
    from zoo.data.log_mel import causal_log_mel

    sounds = np.stack([tone(symbol, 1.0) for symbol in SYMBOLS])
    return np.asarray(causal_log_mel(sounds, 80))[:, 50]


def spoken(text: str) -> np.ndarray:
    """Letters with short pauses between, "_" is a second of silence."""
    parts = [
        [np.zeros(SAMPLE_RATE, np.float32)] if letter == "_" else [tone(letter), tone("", 0.06)] for letter in text
    ]
    return np.concatenate([part for pair in parts for part in pair])


@pytest.fixture(scope="module")
def speller() -> Speller:
    card = tiny.card(
        WeightSource("url", {}),
        task="speech commands",
        labels=SYMBOLS,
        preprocessing={"vocabulary": ["go", "on", "stop"], "beams": 4},
    )
    return Speller(card, ToneReader())


def test_what_is_said_and_when(speller):
    segments = speller.transcribe(spoken("_go on__stop_"))
    assert [segment.text for segment in segments] == ["go on", "stop"]
    first, second = segments
    assert [word.text for word in first.words] == ["go", "on"]
    letter = LETTER + 0.06
    for word, start in ((first.words[0], 1.0), (first.words[1], 1 + 3 * letter), (second.words[0], 3 + 5 * letter)):
        assert word.start == pytest.approx(start, abs=0.07)
        assert word.end - word.start == pytest.approx(len(word.text) * letter - 0.12, abs=0.15)
    assert (first.start, first.end) == (first.words[0].start, first.words[-1].end)
    assert not first.doubtful
    assert speller.transcribe(np.zeros(5 * SAMPLE_RATE, np.float32)) == []
    assert speller.transcribe(np.zeros(0, np.float32)) == []


def test_across_windows_it_is_as_in_one_and_a_stopped_run_goes_on(speller):
    """Half a minute: texts that lie across the borders of windows are written down once, and in the order of time."""
    sound = spoken("_go on_" + "stop_" * 12 + "on go stop_" * 3)
    steps = list(speller.follow(sound))
    segments = [segment for _, found in steps for segment in found]
    assert [segment.text for segment in segments] == ["go on", *["stop"] * 12, *["on go stop"] * 3]
    assert len(steps) > 3
    assert steps[-1][0] == pytest.approx(len(sound) / SAMPLE_RATE, abs=0.05)
    for until, _ in steps[:3]:
        rest = [segment for _, found in speller.follow(sound, begin=until) for segment in found]
        wanted = [segment for segment in segments if segment.start > until]
        assert [segment.text for segment in rest] == [segment.text for segment in wanted]
        np.testing.assert_allclose([s.start for s in rest], [s.start for s in wanted], atol=0.04)


def test_a_text_without_pauses_is_parted(speller):
    segments = speller.transcribe(spoken("_" + "stop " * 20 + "_"))
    assert len(segments) > 1
    assert " ".join(segment.text for segment in segments) == " ".join(["stop"] * 20)


def test_other_words_are_doubtful(speller):
    (segment,) = speller.transcribe(spoken("_go now_"))
    assert set(segment.text.split()) <= {"go", "on", "stop"}
    assert segment.doubtful


def test_texts_end_at_pauses():
    best = np.zeros(900, int)
    best[[10, 12, 30, 80]] = 2
    assert first_text(best, 1, is_all=False) == (10, 31)
    assert first_text(best[:50], 1, is_all=False) is None, "it may go on"
    assert first_text(best[:50], 1, is_all=True) == (10, 31)
    assert first_text(best[:10], 1, is_all=True) is None
    best[10:900:20] = 2
    best[[330, 335]] = 0, 2
    assert first_text(best, 1, is_all=False) == (10, 311), "nothing is as much like a pause"
    best[[290, 350, 450]] = 1
    assert first_text(best, 1, is_all=False) == (10, 351), "but a space is better"


def test_a_stream_is_as_the_whole(speller):
    sound = spoken("_go on_stop__")
    with speller.stream() as stream:
        texts = [stream.push(sound[start : start + 1000]) for start in range(0, len(sound), 1000)]
    assert texts[-1] == "go on\nstop\n"
    assert all(later.startswith(earlier.rstrip()) for earlier, later in itertools.pairwise(texts))
    at = [text.rstrip() for text in texts].index("go")
    assert at * 1000 / SAMPLE_RATE < 1 + 2 * (LETTER + 0.06) + 0.15, "it is there soon after it was said"


def test_mistakes_are_told(speller):
    with pytest.raises(UserError, match="a sound is float32"):
        speller.stream().push(np.zeros(3, np.int16))
    with pytest.raises(UserError, match="takes no prompt: it knows 3 words only"):
        speller.transcribe(np.zeros(3, np.float32), prompt="names")
    ahead = Speller(speller.card, ToneReader())
    ahead.model.is_causal = False
    with pytest.raises(UserError, match="wants to hear what comes after"):
        ahead.stream()


def test_the_command(speller, tmp_path, monkeypatch, capsys):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes((spoken("_go on_") * 32767).astype(np.int16).tobytes())
    (tmp_path / "said.wav").write_bytes(file.getvalue())
    monkeypatch.setattr(registry, "card", lambda name: speller.card)
    monkeypatch.setattr("zoo.predictor.load", lambda name: speller)
    transcribe.main([str(tmp_path / "said.wav"), "--model", "tiny_colours"])
    assert capsys.readouterr().out == "go on\n"
