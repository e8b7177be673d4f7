"""Which frame is shown when, for every kind of file; errors are in test_decode_errors.py, looks in test_picture.py."""

import bisect
import ctypes
import itertools
import os
import platform
import struct
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import numbered, numbers, write_clip
from zoo.data.decode import VideoReader, open_video

_NOISE = np.random.default_rng(0).integers(0, 256, (12, 22, 34, 3), dtype=np.uint8)

# Key frames and B-frames where they are asked for, not where the encoder would rather have them.
_STRICT = "scenecut=0:b-adapt=0:bframes=3"
_H264 = {"keyframe_every": 25, "codec_options": {"x264-params": _STRICT}}
_OPEN_GOP = {"keyframe_every": 25, "codec_options": {"x264-params": f"{_STRICT}:open-gop=1"}}
_HEVC = {"codec": "libx265", "keyframe_every": 25, "codec_options": {"x265-params": f"{_STRICT}:log-level=none"}}

# File names and write_clip's options. Between them: B-frames, open groups of pictures, time stamps that begin late and
# none at all, containers without an index, without a duration, with sound, with millisecond and with 1/fps clocks.
_FILES = {
    "b_frames.mp4": _H264,
    "fast_start.mov": {**_H264, "container_options": {"movflags": "faststart"}},
    "fragments.mp4": {**_H264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "interlaced.ts": {**_H264, "codec_options": {"x264-params": f"{_STRICT}:tff=1"}},
    "open_gop.mp4": _OPEN_GOP,
    "open_gop.mkv": _OPEN_GOP,
    "open_gop.ts": _OPEN_GOP,
    "hevc.mp4": _HEVC,
    "hevc.ts": _HEVC,
    "starts_late.mp4": {**_H264, "times": 2 + np.arange(120) / 25},
    "starts_late.mkv": {**_H264, "times": 2 + np.arange(120) / 25},
    "with_sound.mp4": {**_H264, "audio": 6.0},
    "with_sound.mkv": {**_H264, "audio": 6.0},
    "no_duration.mkv": {**_H264, "container_options": {"live": "1"}},
    "mpeg4.avi": {"codec": "mpeg4", "keyframe_every": 25, "codec_options": {"bf": "2"}},
    "h264.flv": _H264,
    "mpeg2.mpg": {"codec": "mpeg2video", "keyframe_every": 12, "codec_options": {"bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2", "keyframe_every": 25},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "keyframe_every": 25,
        "codec_options": {"deadline": "realtime", "cpu-used": "8"},
    },
    "vp8.ivf": {
        "codec": "libvpx",
        "keyframe_every": 25,
        "codec_options": {"deadline": "realtime", "auto-alt-ref": "1"},
    },
    "all_key.avi": {"codec": "mjpeg"},
    "bare.mjpeg": {"codec": "mjpeg", "container": "mjpeg"},
    "bare.h264": {**_H264, "container": "h264"},
    "ffv1.nut": {"codec": "ffv1", "keyframe_every": 25},
    "animated.gif": {"codec": "gif"},
    "animated.webp": {"codec": "libwebp_anim", "pix_fmt": "bgra"},
}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Fills with the time stamps of the frames that were decoded."""
    stamps = []
    decode = VideoReader._decode

    def noting(self, *args):
        for stamp, frame in decode(self, *args):
            stamps.append(stamp)
            yield stamp, frame

    monkeypatch.setattr(VideoReader, "_decode", noting)
    return stamps


@pytest.mark.parametrize("name", _FILES)
def test_every_format_gives_every_frame_in_order_and_the_right_one_at_any_time(name, tmp_path):
    path = write_clip(tmp_path / name, numbered(120), **_FILES[name])
    with open_video(path) as video:
        times, frames = zip(*video.frames(), strict=True)
        assert numbers(np.stack(frames)) == list(range(120))
        np.testing.assert_allclose(times, np.arange(120) / 25, atol=0.0011)
        assert video.duration == pytest.approx(120 / 25, abs=0.002)
        assert video.frame_rate == pytest.approx(25, rel=0.01)
        wanted = np.random.default_rng(0).uniform(-0.5, 5.5, 40)
        expected = [frames[max(0, bisect.bisect_right(times, t) - 1)] for t in wanted]
        np.testing.assert_array_equal(video.frames_at(wanted), expected)


@pytest.mark.skipif("ZOO_REAL_CLIPS" not in os.environ, reason="ZOO_REAL_CLIPS names no folder of real clips")
def test_two_frames_in_one_packet_stand_in_order_and_are_found():
    """opencv-doc's Megamind.avi: DivX packs a B-frame behind the next P-frame, and leaves its own packet empty."""
    with open_video(Path(os.environ["ZOO_REAL_CLIPS"]) / "Megamind.avi") as video:
        times, frames = zip(*video.frames(), strict=True)
        np.testing.assert_allclose(times, np.arange(270) / 23.976, atol=0.001)
        wanted = np.random.default_rng(0).permutation(270)[:90]
        found = video.frames_at((wanted + 0.5) / 23.976)
    np.testing.assert_array_equal(found, [frames[index] for index in wanted])


def test_frames_at_seeks_instead_of_decoding_all(tmp_path, decoded):
    path = write_clip(tmp_path / "long.mkv", numbered(250, 16, 16), codec="ffv1", keyframe_every=25)
    with open_video(path) as video:
        assert [stamp // 40 for stamp in decoded] == [0]  # opening decodes one frame
        decoded.clear()
        assert numbers(video.frames_at([9.12, 5.04, 0.08])) == [228, 126, 2]
    # from the start, from key frame 125 and from 225; each time up to the frame after the wanted one
    assert [stamp // 40 for stamp in decoded] == [0, 1, 2, 3, 125, 126, 127, 225, 226, 227, 228, 229]


def test_frames_at_decodes_a_dense_request_once(tmp_path, decoded):
    path = write_clip(tmp_path / "all_key.mkv", numbered(100, 16, 16), codec="ffv1", keyframe_every=1)
    with open_video(path) as video:
        decoded.clear()
        times = np.concatenate([np.arange(100), np.arange(0, 100, 3)]) / 25
        assert numbers(video.frames_at(times)) == [*range(100), *range(0, 100, 3)]
    assert len(decoded) == 100


@pytest.mark.parametrize("threads", [1, 0])
def test_frames_that_no_other_needs_are_left_out(tmp_path, decoded, threads):
    """Between key frames stand a frame that others need and three, or two of three in a pyramid, that none does."""
    with open_video(write_clip(tmp_path / "clip.mp4", numbered(120), **_H264), threads) as video:
        decoded.clear()
        assert numbers(video.frames_at(np.arange(0, 120, 16) / 25)) == list(range(0, 120, 16))
        assert len(decoded) < 80
        decoded.clear()
        assert numbers(video.frames_at(np.arange(120) / 25)) == list(range(120))
        assert len(decoded) == 120


class _Astray:
    """A container whose seeks end up to 100 s too late or, if `early`, at the start."""

    def __init__(self, container, early: bool):
        self._container, self._early = container, early

    def seek(self, offset, stream):
        self._container.seek(0 if self._early else offset + 100_000, stream=stream)

    def __getattr__(self, name):
        return getattr(self._container, name)


@pytest.mark.parametrize("early", [True, False])
def test_a_format_that_seeks_badly_costs_no_more_than_two_passes(tmp_path, decoded, monkeypatch, early):
    path = write_clip(tmp_path / "clip.mkv", numbered(200, 16, 16), codec="ffv1", keyframe_every=20)
    opened = VideoReader._open

    def astray(self):
        container, stream = opened(self)
        return _Astray(container, early), stream

    monkeypatch.setattr(VideoReader, "_open", astray)
    with open_video(path) as video:
        decoded.clear()
        assert numbers(video.frames_at(np.arange(0, 8, 0.8))) == list(range(0, 200, 20))
    assert 180 < len(decoded) < 220


@pytest.fixture(scope="module", params=[0.0, 3.7])
def uneven(request, tmp_path_factory):
    """A clip of variable frame rate, and when each frame is shown, counted from the first."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 40)) + request.param
    path = write_clip(tmp_path_factory.mktemp("uneven") / "clip.mp4", numbered(40), times=times, keyframe_every=8)
    return path, np.round(times * 90_000) / 90_000 - times[0]


@settings(max_examples=30, deadline=None)
@given(wanted=st.lists(st.floats(-1, 5), min_size=1, max_size=8))
def test_variable_frame_rate_is_sampled_by_time(wanted, uneven):
    path, times = uneven
    with open_video(path) as video:
        got = numbers(video.frames_at(wanted))
        assert video.frame_rate == pytest.approx(39 / times[-1], rel=0.1)
    for t, number in zip(wanted, got, strict=True):
        assert number in {max(0, int(np.sum(times <= t + slack)) - 1) for slack in (0, 0.0006)}


def test_millisecond_clocks_do_not_shift_frames(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", numbered(90), fps=30)
    with open_video(path) as video:
        assert numbers(video.frames_at(np.arange(90) / 30)) == list(range(90))


def test_frames_before_an_edit_list_begins_are_not_shown(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", numbered(30), times=(np.arange(30) - 5) / 25)  # makes the muxer hide five
    with open_video(path) as video:
        assert numbers(np.stack([frame for _, frame in video.frames()])) == list(range(5, 30))
        assert numbers(video.frames_at([0, 0.4, 9])) == [5, 15, 29]
        assert video.duration == pytest.approx(1.0)


def test_frames_after_an_edit_list_ends_are_not_shown(tmp_path):
    data = write_clip(tmp_path / "clip.mp4", numbered(50), codec_options={"bf": "0"}).read_bytes()
    place = data.index(b"elst") + 12  # past version, flags and the count: the segment's duration in milliseconds
    assert struct.unpack(">I", data[place : place + 4]) == (2000,)
    with open_video(data[:place] + struct.pack(">I", 1000) + data[place + 4 :]) as video:
        assert video.duration == pytest.approx(1.0, abs=0.05)
        assert numbers(video.frames_at([9.0]))[0] in (24, 25)


def test_missing_presentation_times_are_made_up_for(tmp_path):
    """As in opencv-doc's box.mp4: B-frames, and a container that tells decoding times alone."""
    path = write_clip(tmp_path / "clip.mp4", numbered(100), container_options={"use_editlist": "0"}, **_H264)
    data = path.read_bytes()
    assert data.count(b"ctts") == 1
    with open_video(data.replace(b"ctts", b"free")) as video:
        times, frames = zip(*video.frames(), strict=True)
        assert numbers(np.stack(frames)) == list(range(100))
        np.testing.assert_allclose(times, np.arange(100) / 25, atol=1e-6)
        assert numbers(video.frames_at([3.2, 0.4, 1.04])) == [80, 10, 26]


@pytest.mark.parametrize("count", [0, 7, 100_000, 2**31 - 1])
def test_a_wrong_frame_count_in_the_header_does_no_harm(tmp_path, count):
    data = bytearray(write_clip(tmp_path / "clip.avi", numbered(50), codec="mpeg4").read_bytes())
    for place in (data.index(b"strh") + 8 + 32, data.index(b"avih") + 8 + 16):
        assert struct.unpack("<I", data[place : place + 4]) == (50,)
        data[place : place + 4] = struct.pack("<I", count)
    with open_video(bytes(data)) as video:
        assert video.duration == pytest.approx(2.0)
        assert numbers(video.frames_at([0, 1, 99])) == [0, 25, 49]


def test_damaged_frames_are_left_out_with_a_notice(tmp_path):
    data = bytearray(write_clip(tmp_path / "clip.mov", numbered(9), codec="png").read_bytes())
    places = [place for place in range(len(data)) if data.startswith(b"IHDR", place)]
    data[places[4] : places[4] + 30] = bytes(30)
    with open_video(bytes(data)) as video, pytest.warns(UserWarning, match="damaged frame"):
        assert numbers(np.stack([frame for _, frame in video.frames()])) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_iterations_do_not_disturb_each_other(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", numbered(60), keyframe_every=10)
    with open(path, "rb") as file, open_video(file) as video:
        pairs = itertools.islice(zip(video.frames(), video.frames(), strict=True), 30)
        for index, ((_, first), (_, second)) in enumerate(pairs):
            other = video.frames_at([(59 - index) / 25])[0]
            assert numbers(np.stack([first, second, other])) == [index, index, 59 - index]


def test_big_frames_are_released_one_by_one(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", numbered(40), codec="ffv1")
    alive = []

    def shrink(frame):
        alive.append(weakref.ref(frame))
        assert sum(reference() is not None for reference in alive) <= 2
        return frame[:1, :1].copy()

    with open_video(path) as video:
        assert video.frames_at(np.arange(40) / 25, each=shrink).shape == (40, 1, 1, 3)


class _InUse(ctypes.Structure):
    """glibc's `struct mallinfo2`, whose eighth number is the bytes in use."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]


def _bytes_in_use() -> int:
    told = ctypes.CDLL(None).mallinfo2
    told.restype = _InUse
    return told().field7


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc tells how much memory is in use")
def test_videos_that_are_left_in_the_middle_give_back_their_memory(tmp_path):
    """PyAV's iterator over packets keeps a third of a kilobyte if nobody closes it: a hundred megabytes an epoch."""
    path = write_clip(tmp_path / "clip.mp4", _NOISE)

    def look(times: int) -> None:
        for _ in range(times):
            with open_video(path, threads=1) as video:
                video.frames_at([0.0])

    look(20)
    before = _bytes_in_use()
    look(200)
    assert _bytes_in_use() - before < 200 * 100
