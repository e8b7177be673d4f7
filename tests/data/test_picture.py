"""What a frame looks like: its orientation, colours, size and shape, for every kind of file and picture."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.clips import numbered, numbers, write_clip
from zoo.data.decode import open_video

_NOISE = np.random.default_rng(0).integers(0, 256, (12, 22, 34, 3), dtype=np.uint8)


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
