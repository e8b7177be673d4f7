"""Windows, and shots out of probabilities, against the original's rule written as its loop."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests import brightness
from tests.clips import write_clip
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.shot_detector import ShotDetector, Transitions, Windows, shots_of

WINDOWS = Windows(height=27, width=48, window=100, stride=50, threshold=0.5, frame_rate=25.0)


def transitions(middle) -> Transitions:
    middle = np.asarray(middle, np.float32)
    return Transitions(np.arange(len(middle)) / 10, len(middle) / 10, middle, middle)


def scenes_by_loop(is_transition: np.ndarray) -> list[tuple[int, int]]:
    scenes, now, start = [], False, 0
    for index, now in enumerate(is_transition):
        before = index > 0 and is_transition[index - 1]
        if before and not now:
            start = index
        if now and not before and index:
            scenes.append((start, index))
    if not now:
        scenes.append((start, len(is_transition) - 1))
    return scenes or [(0, len(is_transition) - 1)]


def test_shots_equal_the_loop_s():
    rng = np.random.default_rng(0)
    for case in range(300):
        is_transition = rng.random(rng.integers(1, 12)) < rng.choice([0.2, 0.5, 0.9])
        found = shots_of(transitions(is_transition * 0.8), 0.5)
        assert [(shot.first_frame, shot.last_frame) for shot in found] == scenes_by_loop(is_transition), case
        assert all(shot.start == pytest.approx(shot.first_frame / 10) for shot in found)
        assert all(shot.end == pytest.approx((shot.last_frame + 1) / 10) for shot in found)
        for shot in found:
            assert (shot.boundary is not None) == is_transition[shot.last_frame]


def test_shots_of_the_package_s_film_equal_the_package_s():
    with np.load(Path(__file__).parent / "golden" / "transnetv2.npz") as golden:
        found = shots_of(transitions(golden["published_one"]), 0.5)
        np.testing.assert_array_equal([(shot.first_frame, shot.last_frame) for shot in found], golden["scenes"])


@pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 100, 149, 150, 151])
def test_windows_are_those_of_the_padded_film(count: int):
    frames = [np.full((27, 48, 3), index % 256, np.uint8) for index in range(count)]
    end = 25 + (50 - count % 50 if count % 50 else 0)
    padded = np.stack([frames[0]] * 25 + frames + [frames[-1]] * end)
    expected = [padded[start : start + 100] for start in range(0, len(padded) - 99, 50)]
    found = list(WINDOWS(iter(frames)))
    assert len(found) == len(expected) == -(-count // 50)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> ShotDetector:
    return brightness.detector(monkeypatch)


@pytest.mark.parametrize("count", [1, 50, 130])
def test_every_frame_gets_its_own_probability(detector: ShotDetector, count: int):
    levels = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    found = detector.transitions(np.broadcast_to(levels[:, None, None, None], (count, 8, 12, 3)))
    np.testing.assert_allclose(found.middle, levels / 255, atol=1e-6)
    np.testing.assert_allclose(found.within, 1 - levels / 255, atol=1e-6)
    assert found.duration == count / 25


def test_a_film_of_variable_rate_keeps_its_own_times(detector: ShotDetector, tmp_path: Path):
    times = [0.0, 0.1, 0.5, 0.55, 2.0]
    frames = np.zeros((5, 16, 32, 3), np.uint8)
    frames[1] = 255  # a "cut" after the second frame
    path = write_clip(tmp_path / "film.mkv", frames, times=times, codec="ffv1")
    with open_video(path) as reader:
        shots = detector(reader)
    assert [(shot.first_frame, shot.last_frame) for shot in shots] == [(0, 1), (2, 4)]
    np.testing.assert_allclose([shot.start for shot in shots], [0, 0.5], atol=2e-3)
    assert shots[0].end == pytest.approx(0.5, abs=2e-3)
    assert detector(path, threshold=1.0)[0].last_frame == 4


def test_frames_of_any_size(detector: ShotDetector, tmp_path: Path):
    for height, width in ((1, 1), (2160, 3840)):
        assert len(detector(np.zeros((1, height, width, 3), np.uint8))) == 1
    path = write_clip(tmp_path / "dot.mkv", np.zeros((2, 1, 1, 3), np.uint8), codec="ffv1")
    assert [dataclasses.astuple(shot)[:2] for shot in detector(path)] == [(0, 1)]


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((2, 4), np.uint8)]
)
def test_a_wrong_array_is_a_mistake(detector: ShotDetector, frames: np.ndarray):
    with pytest.raises(UserError, match="uint8"):
        detector(frames)
