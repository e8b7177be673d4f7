import io
import os
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import write_clip
from tests.golden import drawn
from zoo.data.decode import open_video
from zoo.data.transforms import Preprocessing
from zoo.errors import UserError

_I3D = {
    "num_frames": 64, "frame_rate": 25.0, "max_clips": 10, "resize_short": 256, "crop": 224,
    "interpolation": "bilinear", "mean": 127.5, "std": 127.5,
}  # fmt: skip
_SMALL = {**_I3D, "num_frames": 8, "max_clips": 3, "resize_short": 20, "crop": 16}


def _triangle(x):
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x, a=-0.5):
    """Keys' kernel, IEEE Trans. ASSP 29(6), 1981."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x < 1, near, np.where(x < 2, a * (x**3 - 5 * x**2 + 8 * x - 4), 0))


def _weights(old: int, new: int, kernel, radius: float) -> np.ndarray:
    """[new, old]: each new pixel's share of the old ones; the kernel spans more of them as the picture shrinks."""
    scale = max(1.0, old / new)
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new
        for j in range(old):
            distance = (j + 0.5 - centre) / scale
            weights[i, j] = kernel(np.array(distance)) if abs(distance) < radius else 0
    return weights / weights.sum(axis=1, keepdims=True)


def _brute_force(frame: np.ndarray, short: int, crop: int, kernel, radius: float, rows_first: bool) -> np.ndarray:
    """Resize and centre crop from the definitions, in float64, but for uint8 between the two passes."""
    if rows_first:
        swapped = frame.swapaxes(0, 1)
        return _brute_force(swapped, short, crop, kernel, radius, rows_first=False).swapaxes(0, 1)
    height, width = frame.shape[:2]
    new_height, new_width = int(height * short / min(height, width)), int(width * short / min(height, width))
    columns = np.einsum("xw,hwc->hxc", _weights(width, new_width, kernel, radius), frame.astype(float))
    columns = np.clip(np.floor(columns + 0.5), 0, 255)  # halves go up, as in Pillow
    resized = np.einsum("yh,hxc->yxc", _weights(height, new_height, kernel, radius), columns)
    top, left = round((new_height - crop) / 2), round((new_width - crop) / 2)
    return np.clip(np.floor(resized + 0.5), 0, 255)[top : top + crop, left : left + crop]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), short=st.integers(1, 40), data=st.data(),
    filter_=st.sampled_from([("bilinear", _triangle, 1), ("bicubic", _cubic, 2)]),
)  # fmt: skip
def test_resize_and_crop_equal_the_brute_force_to_a_grey_level(height, width, short, data, filter_):
    interpolation, kernel, radius = filter_
    crop = data.draw(st.integers(1, short))
    frame = np.random.default_rng(height * 71 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preprocessing = Preprocessing(**{**_I3D, "resize_short": short, "crop": crop, "interpolation": interpolation})
    result = preprocessing.resize(frame)
    assert result.shape == (crop, crop, 3)
    assert result.dtype == np.uint8
    # Pillow begins with the direction that is cheaper; noise that overshoots is clipped between the two
    differences = [
        np.abs(result - _brute_force(frame, short, crop, kernel, radius, rows_first)).max()
        for rows_first in (False, True)
    ]
    assert min(differences) <= 1


@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (640, 480), (256, 256), (224, 400), (1080, 1920), (33, 500), (1, 1), (256, 341)]
)
def test_the_crop_lies_in_the_middle(height, width):
    """A picture that is symmetric stays so, up to the one pixel that an odd margin leaves over."""
    rows, columns = np.mgrid[:height, :width]
    ramp = 100 * np.abs(rows / height + 0.5 / height - 0.5) + 150 * np.abs(columns / width + 0.5 / width - 0.5)
    result = Preprocessing(**_I3D).resize(np.repeat(ramp[..., None], 3, axis=-1).astype(np.uint8)).astype(int)
    assert result.shape == (224, 224, 3)
    np.testing.assert_allclose(result, result[::-1], atol=4)
    np.testing.assert_allclose(result, result[:, ::-1], atol=4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [8, 20, 100])
def test_an_array_and_a_lossless_file_of_it_give_the_same(tmp_path, count):
    frames = np.random.default_rng(count).integers(0, 256, (count, 30, 41, 3), dtype=np.uint8)
    for interpolation, fps in (("bilinear", 25), ("bicubic", 30), ("bilinear", 30000 / 1001)):
        preprocessing = Preprocessing(**{**_SMALL, "interpolation": interpolation, "frame_rate": fps})
        path = write_clip(tmp_path / "clip.mkv", frames, codec="ffv1", fps=fps)
        from_array = preprocessing(frames)
        assert from_array.shape == (min(3, -(-count // 8)), 8, 16, 16, 3)
        assert from_array.dtype == np.float32
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
            np.testing.assert_array_equal(preprocessing(source), from_array)
        np.testing.assert_array_equal(preprocessing(jnp.asarray(frames)), from_array)


@pytest.mark.filterwarnings("error")
def test_clips_are_the_frames_that_the_definition_names():
    """By hand: 20 frames in clips of 8, three of them, begin at 0, 6 and 12."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    preprocessing = Preprocessing(**{**_SMALL, "resize_short": 16, "mean": (10, 20, 30), "std": (2, 4, 5)})
    expected = np.stack(
        [(frames[start : start + 8] - np.array([10.0, 20, 30])) / np.array([2, 4, 5]) for start in (0, 6, 12)]
    )
    np.testing.assert_allclose(preprocessing(frames), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_the_rate_of_the_video_does_not_change_what_is_seen(tmp_path):
    """A clip at 50 a second, and the same with every other frame only, at 25."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    fast = write_clip(tmp_path / "fast.mkv", frames, codec="ffv1", fps=50)
    slow = write_clip(tmp_path / "slow.mkv", frames[::2], codec="ffv1", fps=25)
    preprocessing = Preprocessing(**_SMALL)
    np.testing.assert_array_equal(preprocessing(fast), preprocessing(slow))


def test_i3d_sees_pixels_from_minus_one_to_one():
    frames = np.zeros((64, 224, 300, 3), np.uint8)
    frames[32:] = 255
    clips = Preprocessing(**_I3D)(frames)
    assert clips.shape == (1, 64, 224, 224, 3)
    np.testing.assert_array_equal(clips[0, :32], -1)
    np.testing.assert_array_equal(clips[0, 32:], 1)


@pytest.mark.parametrize("from_file", [False, True])
def test_a_short_video_repeats_its_last_frame_with_one_notice(tmp_path, from_file):
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    video = write_clip(tmp_path / "clip.mkv", frames, codec="ffv1") if from_file else frames
    with pytest.warns(UserWarning, match=r"lasts 0\.12 s and the model sees 0\.32 s") as notices:
        clips = Preprocessing(**_SMALL)(video)
    assert len(notices) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        long = Preprocessing(**_SMALL)(np.concatenate([frames, np.repeat(frames[2:], 5, axis=0)]))
    np.testing.assert_array_equal(clips, long)


def test_arrays_that_are_no_video():
    preprocessing = Preprocessing(**_SMALL)
    for array, words in (
        (np.zeros((4, 8, 8, 3), np.float32), "not float32 [4, 8, 8, 3]"),
        (np.zeros((8, 8, 3), np.uint8), "not uint8 [8, 8, 3]"),
        (np.zeros((4, 3, 8, 8), np.uint8), "not uint8 [4, 3, 8, 8]"),
        (np.zeros((4, 8, 8, 4), np.uint8), "not uint8 [4, 8, 8, 4]"),
        (np.zeros((0, 8, 8, 3), np.uint8), "[0, 8, 8, 3] has no frames"),
        (np.zeros((4, 0, 8, 3), np.uint8), "[4, 0, 8, 3] has no frames"),
    ):
        with pytest.raises(UserError) as caught:
            preprocessing(array)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_cards_that_make_no_sense():
    with pytest.raises(UserError, match="interpolation 'nearest' is not known; there are bilinear, bicubic"):
        Preprocessing(**{**_I3D, "interpolation": "nearest"})
    with pytest.raises(UserError, match="a crop of 224 pixels does not fit a short side of 200"):
        Preprocessing(**{**_I3D, "resize_short": 200})


@pytest.mark.slow
def test_an_8k_video_is_read_frame_by_frame(tmp_path):
    """Twelve frames of 7680 x 4320 are 1.2 GB; the pictures beside the decoder stay below two of them."""
    import tracemalloc

    frames = (np.full((4320, 7680, 3), 20 * index, np.uint8) for index in range(12))
    options = {"preset": "ultrafast", "tune": "zerolatency"}
    path = write_clip(tmp_path / "8k.mp4", frames, codec_options=options)
    tracemalloc.start()  # NumPy reports its arrays to it
    clips = Preprocessing(**{**_I3D, "num_frames": 12})(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clips.shape == (1, 12, 224, 224, 3)
    np.testing.assert_allclose(clips[0, :, 100, 100, 0] * 127.5 + 127.5, 20 * np.arange(12), atol=2)
    assert peak < 2.5 * 4320 * 7680 * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds", "size"),
    [("cup.mp4", 8.10, (480, 640)), ("box.mp4", 15.2, (480, 640)), ("vtest.avi", 79.5, (576, 768))],
)
def test_real_clips(name, seconds, size):
    """opencv-doc's, in the folder that ZOO_REAL_CLIPS names."""
    path = Path(os.environ["ZOO_REAL_CLIPS"]) / name
    with open_video(path) as video:
        assert video.duration == pytest.approx(seconds, abs=0.05)
        assert (video.height, video.width) == size
        times, frames = zip(*video.frames(), strict=True)
        wanted = np.random.default_rng(0).uniform(0, video.duration, 20)
        expected = np.searchsorted(times, wanted + 0.0005, side="right") - 1
        np.testing.assert_array_equal(video.frames_at(wanted), np.stack(frames)[expected])
    clips = Preprocessing(**_I3D)(path)
    assert clips.shape[1:] == (64, 224, 224, 3)
    assert -1 <= clips.min() < -0.9
    assert 0.9 < clips.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20), (20, 20)])
def test_several_crops_run_along_the_long_side(height, width):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preprocessing = Preprocessing(**{**_SMALL, "num_frames": 1, "resize_short": 20, "crop": 16})
    first, middle, last = preprocessing.sample(frame[None], num_clips=1, num_crops=3)[0, :, 0]
    np.testing.assert_array_equal(middle, preprocessing.resize(frame))
    top, bottom = (slice(2, 18), slice(2, 18)) if width > height else (slice(0, 16), slice(-16, None))
    left, right = (slice(0, 16), slice(-16, None)) if width >= height else (slice(2, 18), slice(2, 18))
    if height == width:
        top = bottom = slice(2, 18)
    np.testing.assert_array_equal(first, frame[top, left])
    np.testing.assert_array_equal(last, frame[bottom, right])


def test_stretched_and_not_antialiased_as_torchvision_s_preset_for_video():
    """golden/make_networks.py: torchvision's own preset for a 16x22 frame and a 14x14 crop."""
    _, golden = drawn.read("preprocessing")
    preprocessing = Preprocessing(
        **{**_SMALL, "num_frames": 2, "resize_short": 16, "crop": 14},
        resize_to=(16, 22),
        antialias=False,
    )
    pixels = preprocessing.sample(drawn.frames(), num_clips=1)[0, 0]
    mean, std = np.array([0.43216, 0.394666, 0.37645]), np.array([0.22803, 0.22145, 0.216989])
    expected = np.round((golden["clip"] * std + mean) * 255)
    # A value in the middle of two whole numbers may be rounded to either.
    off = np.abs(pixels.astype(int) - expected)
    assert off.max() <= 1
    assert (off == 1).mean() < 0.01
    with pytest.raises(UserError, match="a crop of 20 pixels does not fit a short side of 16"):
        Preprocessing(**{**_SMALL, "crop": 20}, resize_to=(16, 22))
    with pytest.raises(UserError, match="bicubic interpolation without antialiasing"):
        Preprocessing(**{**_SMALL, "interpolation": "bicubic"}, antialias=False)
