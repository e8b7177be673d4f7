"""Figures of drawn clips on clips whose figures are known."""

import numpy as np
import pytest

from zoo import kernels
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


class Bars:
    """Clips of 16x16 that show lying bars, standing bars, both, or two of a kind."""

    num_classes = 2

    def __init__(self, num_frames: int, seed: int):
        self.num_frames, self.seed = num_frames, seed

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        frame = np.zeros((16, 16, 1), np.uint8)
        counts = np.array([(1, 0), (0, 1), (1, 1), (2, 0), (0, 2)][rng.integers(5)], np.float32)
        for lying, count in ((True, counts[0]), (False, counts[1])):
            for line in rng.choice(np.arange(0, 16, 5), int(count), replace=False):
                (frame if lying else frame.swapaxes(0, 1))[line : line + 2] = 255
        return {"video": np.stack([frame] * self.num_frames), "classes": counts}


@pytest.mark.slow
def test_a_reader_learns_how_often_each_class_is_seen():
    items = [Bars(4, seed=1)[index] for index in range(70)]
    clips, counts = (np.stack([item[name] for item in items]) for name in ("video", "classes"))
    with kernels.prefer("xla"):
        read, again = (train_reader([Bars(1, seed=0)], steps=60)(clips) for _ in range(2))
    np.testing.assert_array_equal(read, again)
    assert agreement(read, counts) > 0.95
    wrong = counts.copy()
    wrong[:14, 0] += 1
    assert agreement(wrong, counts) == 0.8
