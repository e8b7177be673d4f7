"""What a frame looks like and when it is shown, for every kind of file; the errors are in test_decode_errors.py."""

import bisect
import io
import itertools
import struct
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


@pytest.mark.parametrize(("suffix", "codec"), [("mov", "png"), ("mkv", "ffv1")])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_honoured(tmp_path, suffix, codec, rotation, flip):
    stored = _NOISE[:2]
    path = write_clip(tmp_path / f"clip.{suffix}", stored, codec=codec, rotation=rotation, flip=flip)
    shown = np.rot90(stored, rotation // 90, axes=(1, 2))  # counter-clockwise, as the file says
    shown = shown[:, :, ::-1] if flip else shown
    with open_video(path) as video:
        assert (video.height, video.width) == shown.shape[1:3]
        np.testing.assert_array_equal(video.frames_at([0, 0.04]), shown)


def _yuv_clip(path, colours: np.ndarray, matrix: int, value_range: int, pix_fmt: str):
    """A frame for each of [N, 3] luma and chroma values, the whole picture in that colour."""
    frames = []
    for colour in colours:
        frame = av.VideoFrame(32, 16, pix_fmt)
        dtype = np.uint16 if "10" in pix_fmt else np.uint8
        for plane, value in zip(frame.planes, colour, strict=True):
            plane.update(np.full(plane.buffer_size // dtype().nbytes, value, dtype).tobytes())
        frame.colorspace, frame.color_range = matrix, value_range
        frames.append(frame)
    return write_clip(path, frames, codec="ffv1", pix_fmt=pix_fmt)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(2, 0.299, 0.114), (6, 0.299, 0.114), (5, 0.299, 0.114), (1, 0.2126, 0.0722), (9, 0.2627, 0.0593)],
    ids=["unstated", "bt601_525", "bt601_625", "bt709", "bt2020"],
)
def test_colours_follow_the_stated_matrix_and_range(tmp_path, matrix, red, blue, full, pix_fmt):
    """Against the defining equations: ITU-R BT.601-7, BT.709-6, BT.2020-2, with H.273's quantisation."""
    colours = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [90, 160, 40], [200, 120, 180]]
    )
    r, g, b = colours.T / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([luma, (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))], axis=1)
    bits = 10 if "10" in pix_fmt else 8
    unit = 2 ** (bits - 8)
    if full:
        stored = planes * (2**bits - 1) + np.array([0, 128, 128]) * unit
    else:
        stored = (planes * np.array([219, 224, 224]) + np.array([16, 128, 128])) * unit
    stored = np.clip(np.round(stored), 0, 2**bits - 1).astype(int)
    path = _yuv_clip(tmp_path / "clip.mkv", stored, matrix, 2 if full else 1, pix_fmt)
    with open_video(path) as video:
        shown = np.stack([frame for _, frame in video.frames()]).astype(int)
    assert np.ptp(shown, axis=(1, 2)).max() <= 1
    # rounding luma and chroma to 8 bits costs up to 2 levels, converting them back at most 1
    np.testing.assert_allclose(shown[:, 8, 16], colours, atol=3 if bits == 8 else 1)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gray", 8), ("gray10le", 10)])
def test_grey_is_the_same_in_all_channels(tmp_path, pix_fmt, bits):
    frame = av.VideoFrame(64, 4, pix_fmt)
    levels = np.tile(np.arange(64) * 4 + 2, (4, 1))
    row = (levels << (bits - 8)).astype(np.uint8 if bits == 8 else np.uint16)
    frame.planes[0].update(
        np.pad(row.view(np.uint8), ((0, 0), (0, frame.planes[0].line_size - row.view(np.uint8).shape[1]))).tobytes()
    )
    frame.color_range = 2
    path = write_clip(tmp_path / "grey.mkv", [frame], codec="ffv1", pix_fmt=pix_fmt)
    with open_video(path) as video:
        shown = video.frames_at([0])[0]
    np.testing.assert_allclose(shown, np.repeat(levels[..., None], 3, axis=-1), atol=1)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "bgr0"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 17), (33, 31), (2, 65), (121, 5)])
def test_odd_sizes_keep_their_last_row_and_column(tmp_path, height, width, pix_fmt):
    rows, columns = np.mgrid[:height, :width]
    picture = np.repeat((60 + 100 * rows / height + 50 * columns / width).astype(np.uint8)[None, ..., None], 3, axis=-1)
    path = write_clip(tmp_path / "odd.mkv", picture, codec="ffv1", pix_fmt=pix_fmt)
    with open_video(path) as video:
        assert (video.height, video.width) == (height, width)
        np.testing.assert_allclose(video.frames_at([0]), picture, atol=0 if pix_fmt == "bgr0" else 2)


def test_transparent_pixels_are_black(tmp_path):
    frames = np.concatenate([_NOISE, np.full((*_NOISE.shape[:3], 1), 255, np.uint8)], axis=-1)
    frames[:, :5, :, 3] = 0
    frames[:, 5:9, :, 3] = 100
    expected = np.round(_NOISE * (frames[..., 3:] / 255)).astype(np.uint8)
    path = write_clip(tmp_path / "alpha.mov", frames, codec="png", pix_fmt="rgba")
    with open_video(path) as video:
        np.testing.assert_array_equal(np.stack([frame for _, frame in video.frames()]), expected)


def test_stored_pixels_are_made_square(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", numbered(3, 48, 64), sample_aspect=Fraction(3, 2))
    with open_video(path) as video:
        assert (video.height, video.width) == (48, 96)
        assert numbers(video.frames_at([0, 0.04, 0.08])) == [0, 1, 2]


def test_a_stream_that_changes_its_size_is_shown_in_the_first(tmp_path):
    small = write_clip(tmp_path / "a.h264", numbered(5, 32, 64), container="h264").read_bytes()
    big = write_clip(tmp_path / "b.h264", numbered(10, 64, 128)[5:], container="h264").read_bytes()
    with open_video(small + big) as video:
        frames = video.frames_at(np.arange(10) / 25)
    assert frames.shape == (10, 32, 64, 3)
    assert numbers(frames) == list(range(10))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_still_picture_is_a_video_of_one_frame(kind):
    picture = numbered(6)[5]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    with open_video(file) as video:
        assert len(list(video.frames())) == 1
        assert numbers(video.frames_at([0, 7.0])) == [5, 5]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(orientation):
    """EXIF's eight orientations, against the definition: where the stored row 0 and column 0 belong in the picture."""
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:24, :40], picture[:24, 40:], picture[24:, :40] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1],
        5: picture.swapaxes(0, 1), 6: np.rot90(picture),
        7: picture[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(picture, -1),
    }[orientation]  # fmt: skip
    image, file = Image.fromarray(np.ascontiguousarray(stored)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    with open_video(file.getvalue()) as video:
        shown = video.frames_at([0])[0]
    np.testing.assert_allclose(shown.astype(int), picture, atol=60)
    assert np.abs(shown.astype(int) - picture).mean() < 2


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


@pytest.mark.parametrize("rotation", [0, 90])
def test_frames_stretched_to_a_size(tmp_path, rotation):
    """A left half of one colour and a right half of another stay so, as shown, in lossless RGB and in 4:2:0."""
    halves = np.zeros((3, 40, 64, 3), np.uint8)
    halves[:, :, :32], halves[:, :, 32:] = (200, 40, 40), (40, 40, 200)
    shown = np.rot90(halves, rotation // 90, axes=(1, 2))
    for name, codec in (("a.mkv", "ffv1"), ("b.mp4", "libx264")):
        with open_video(write_clip(tmp_path / name, halves, codec=codec, rotation=rotation)) as video:
            small = np.stack([frame for _, frame in video.frames((18, 12))])
        assert small.shape == (3, 18, 12, 3)
        for part in ((slice(None), slice(0, 6), slice(0, 4)), (slice(None), slice(-6, None), slice(-4, None))):
            corner = shown[part].reshape(-1, 3).mean(axis=0)
            assert np.abs(small[part].reshape(-1, 3).mean(axis=0) - corner).max() < 8, name
