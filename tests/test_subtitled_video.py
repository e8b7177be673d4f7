"""Subtitles in a video: FFmpeg finds the track, what is copied stays as it was, drawn letters are where they belong."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import numbered, write_clip
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.listener import Segment, Word
from zoo.subtitled_video import burn, check_track, mux


def said(text: str, start: float, end: float) -> Segment:
    return Segment(text, start, end, (Word(text, start, end),), -0.1, doubtful=False)


SEGMENTS = [said("Hello & <you>", 0.5, 1.5), said("Grüße", 1.5, 2.0)]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as file:
        (stream,) = (stream for stream in file.streams if stream.type == kind)
        begin = float(file.start_time or 0) / av.time_base
        return [
            (round(float(packet.pts * packet.time_base) - begin, 2), bytes(packet))
            for packet in file.demux(stream)
            if packet.size and packet.pts is not None
        ]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", np.full((50, 96, 160, 3), 90, np.uint8), audio=2.0)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_track_of_subtitles(tmp_path: Path, clip: Path, suffix: str):
    out = tmp_path / f"out{suffix}"
    mux(str(clip), SEGMENTS, out)
    found = [(time, data[2:] if suffix != ".mkv" else data) for time, data in packets(out, "subtitle")]
    assert [(time, data.decode()) for time, data in found if data] == [(0.5, "Hello & <you>"), (1.5, "Grüße")]
    assert [data for _, data in packets(out, "audio")] == [data for _, data in packets(clip, "audio")]
    with open_video(clip) as before, open_video(out) as after:
        for (time, frame), (other_time, other) in zip(before.frames(), after.frames(), strict=True):
            assert other_time == pytest.approx(time, abs=0.002)
            np.testing.assert_array_equal(other, frame)


def test_nothing_said_gives_a_video_all_the_same(tmp_path: Path, clip: Path):
    mux(str(clip), [], tmp_path / "out.mkv")
    assert packets(tmp_path / "out.mkv", "audio")


def test_drawn_subtitles(tmp_path: Path, clip: Path):
    burn(str(clip), SEGMENTS, tmp_path / "out.mp4", told=lambda seconds: None)
    with open_video(tmp_path / "out.mp4") as video:
        brightest = [(time, frame[64:].max(), frame[:48].max()) for time, frame in video.frames()]
    for time, below, above in brightest:
        assert above < 140
        assert (below > 200) == (0.5 <= time < 2.0), time
    assert packets(tmp_path / "out.mp4", "audio")


def test_what_has_no_room_for_subtitles(tmp_path: Path, clip: Path):
    with pytest.raises(UserError, match=r"cannot put subtitles into .*a.webm: give .mp4, .m4v, .mov, .mkv, or draw"):
        check_track(tmp_path / "a.webm")
    old = write_clip(tmp_path / "old.flv", numbered(5), codec="flv", audio=0.2)
    with pytest.raises(UserError, match=r".mp4 does not take flv1?, aac as they are in .*; give an .mkv"):
        mux(str(old), SEGMENTS, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*"))
