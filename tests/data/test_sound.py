"""Sound of every kind becomes one channel of 16,000 samples a second, in time, and faults are told."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import numbered, write_clip
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.sound import blocks, open_sound
from zoo.errors import UserError

SECONDS = 1.5


def tone(rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 300 * np.arange(round(SECONDS * rate)) / rate)


def write(path: Path, codec: str, layout: str, rate: int, samples: np.ndarray) -> Path:
    """The same samples in each channel."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.tile(samples, (stream.layout.nb_channels, 1)).astype(np.float32), "fltp", layout
        )
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        for part in av.AudioResampler(stream.format.name, layout, rate, frame_size=size).resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return path


def heard(path: Path) -> np.ndarray:
    with open_sound(path) as sound:
        samples = np.concatenate(list(sound.samples()))
        assert sound.fault is None
    return samples


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate"),
    [
        ("a.wav", "pcm_u8", "mono", 8_000),
        ("a.wav", "pcm_s24le", "stereo", 48_000),
        ("a.flac", "flac", "mono", 44_100),
        ("a.mkv", "ac3", "5.1", 48_000),
        ("a.mp4", "aac", "stereo", 22_050),
        ("a.ogg", "flac", "mono", 16_000),
        ("a.mp3", "libmp3lame", "mono", 32_000),
    ],
)
def test_the_same_tone_out_of_everything(tmp_path: Path, name: str, codec: str, layout: str, rate: int):
    samples = heard(write(tmp_path / name, codec, layout, rate, tone(rate)))
    assert samples.dtype == np.float32
    assert len(samples) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.15)  # codecs fill up their last packet
    middle = samples[4000:20_000]
    loudest = np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))))
    assert loudest * SAMPLE_RATE / len(middle) == pytest.approx(300, abs=2)
    if layout != "5.1":  # six channels in one are louder than each
        assert np.abs(middle).max() == pytest.approx(0.5, abs=0.03)


def test_sound_that_begins_late_stays_in_time(tmp_path: Path):
    """A second of pictures before the first sound, as by an editor that shifted the track."""
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        pictures, sound = out.add_stream("ffv1", rate=10), out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        pictures.width, pictures.height, pictures.pix_fmt = 64, 32, "bgr0"
        for frame in numbered(20):
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        part = av.AudioFrame.from_ndarray((tone(SAMPLE_RATE)[None, :8000] * 32767).astype(np.int16), "s16", "mono")
        part.sample_rate, part.pts = SAMPLE_RATE, SAMPLE_RATE
        out.mux(sound.encode(part))
        for stream in (pictures, sound):
            out.mux(stream.encode(None))
    samples = heard(tmp_path / "a.mkv")
    assert np.flatnonzero(np.abs(samples) > 0.1)[0] / SAMPLE_RATE == pytest.approx(1, abs=0.01)


def test_bad_sound(tmp_path: Path):
    silent = write_clip(tmp_path / "silent.mp4", numbered(5))
    with pytest.raises(UserError, match=r"silent.mp4 has no sound track; give a file with sound"):
        open_sound(silent)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(UserError, match=r"text.wav is not a video or a sound in a format that is read here"):
        open_sound(tmp_path / "text.wav")
    with pytest.raises(UserError, match=r"no.mp4"):
        open_sound(tmp_path / "no.mp4")


def test_a_file_that_is_cut_short_is_heard_to_its_end_and_told(tmp_path: Path):
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((np.tile(tone(SAMPLE_RATE), 4) * 32767).astype(np.int16).tobytes())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with open_sound(path) as sound:
        samples = np.concatenate(list(sound.samples()))
        assert len(samples) / SAMPLE_RATE == pytest.approx(3, abs=0.01)
        if sound.duration > 4:  # whether FFmpeg believes the header or the file's size
            assert "is cut short: 3.0 of 6.0 s" in str(sound.fault)
    video = tmp_path / "video.mkv"
    write_clip(video, numbered(100), audio=4.0)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    with open_sound(video) as sound:
        assert 0.5 < sum(map(len, sound.samples())) / SAMPLE_RATE < 4


def test_blocks_are_the_same_samples():
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(size).astype(np.float32) for size in (3, 0, 10, 1, 25)]
    found = list(blocks(iter(parts), 8))
    assert [len(block) for block in found] == [8, 8, 8, 8, 7]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(parts))
