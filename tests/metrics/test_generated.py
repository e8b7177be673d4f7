"""Figures of drawn clips on clips whose figures are known."""

import numpy as np
import pytest

from zoo import kernels
from zoo.data.moving_digits import MovingDigits
from zoo.metrics.generated_clips import copied, jerk, nearest
from zoo.metrics.generated_digits import agreement, train_reader


def squares(paths: np.ndarray) -> np.ndarray:
    """uint8 [N, T, 32, 32, 1]: a square of 4x4 whose corners go along int [N, T, 2]."""
    clips = np.zeros((*paths.shape[:2], 32, 32, 1), np.uint8)
    for clip, path in zip(clips, paths, strict=True):
        for frame, (y, x) in zip(clip, path, strict=True):
            frame[y : y + 4, x : x + 4] = 200
    return clips


def test_only_what_leaves_a_straight_course_jerks():
    straight = np.stack([np.arange(8) * 2, np.arange(8) + 3], axis=-1)
    back = straight.copy()
    back[4:] = straight[2::-1].repeat([2, 1, 1], axis=0)[:4]
    there = np.tile(straight[:1], (8, 1))
    there[1::2, 0] += 3  # to and fro by 3: second differences of 6
    found = jerk(squares(np.stack([straight, there, back])))
    np.testing.assert_allclose(found[:2], [0, 6], atol=1e-9)
    expected = np.linalg.norm(np.diff(back, 2, axis=0), axis=-1).mean()
    np.testing.assert_allclose(found[2], expected)


def test_black_frames_have_no_course():
    clips = squares(np.zeros((2, 8, 2), int))
    clips[0, 3] = 0
    clips[1] = 0
    np.testing.assert_allclose(jerk(clips), 0)


def test_the_nearest_is_found_wherever_it_is():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 256, (7, 3, 8, 12, 1), np.uint8)
    ours = rng.integers(0, 256, (4, 3, 8, 12, 1), np.uint8)
    ours[2] = known[5]
    found = nearest(ours, [known[:3], known[3:]])
    assert found[2] == pytest.approx(0, abs=0.05)
    small = [clips.reshape(len(clips), 3, 2, 4, 3, 4).mean((3, 5)) for clips in (ours, known)]
    each = np.sqrt(np.square(small[0][:, None] - small[1]).mean((2, 3, 4)))
    np.testing.assert_allclose(found, each.min(axis=1), atol=0.05)


def test_copies_are_nearer_than_others_are():
    others = np.arange(1, 1001.0)
    assert copied(others, others) == pytest.approx(0.01, abs=0.001)
    assert copied(np.array([0.0, 5, 500, 900]), others) == 0.5


def test_a_reader_learns_to_read_real_clips():
    """A few steps on digits that need no package: far better than chance, and the same again."""
    data = {"size": 32, "max_digits": 1}
    items = [MovingDigits("test", num_frames=4, **data)[index] for index in range(60)]
    clips, counts = (np.stack([item[name] for item in items]) for name in ("video", "classes"))
    with kernels.prefer("xla"):
        readers = [train_reader([MovingDigits("train", num_frames=1, **data)], steps=60) for _ in range(2)]
        read, again = (reader(clips) for reader in readers)
    np.testing.assert_array_equal(read, again)
    assert read.shape == counts.shape
    assert agreement(read, counts) > 0.5
    assert agreement(read, read) == 1
    wrong = counts.copy()
    wrong[:15, 0] += 1
    assert agreement(wrong, counts) == 0.75
