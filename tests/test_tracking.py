"""Numbers that objects keep while they move, cross frames unseen for a moment, and differ in class."""

import numpy as np

from zoo.tracking import Tracker


def boxes(*lefts: float) -> np.ndarray:
    return np.array([[left, 10, left + 20, 60] for left in lefts], float).reshape(-1, 4)


def test_two_that_walk_keep_their_numbers():
    tracker = Tracker(frame_rate=25, threshold=0.4)
    seen = []
    for step in range(10):
        order = [0, 1] if step % 2 else [1, 0]  # in whatever order they are found
        found = tracker.update(boxes(3 * step, 200 - 3 * step)[order], np.array([0.9, 0.8])[order], np.zeros(2, int))
        seen.append(found[np.argsort(order)].tolist())
    assert all(pair == seen[0] for pair in seen)
    assert sorted(seen[0]) == [1, 2]


def test_one_that_is_hidden_for_a_moment_comes_back_and_a_weak_box_continues_it():
    tracker = Tracker(frame_rate=25, threshold=0.4)
    for step in range(5):
        (number,) = tracker.update(boxes(2 * step), np.array([0.9]), np.zeros(1, int))
    for _ in range(5):
        assert tracker.update(boxes(), np.zeros(0), np.zeros(0, int)).shape == (0,)
    assert tracker.update(boxes(20), np.array([0.9]), np.zeros(1, int)) == [number]
    assert tracker.update(boxes(22), np.array([0.2]), np.zeros(1, int)) == [number]
    assert tracker.update(boxes(300), np.array([0.2]), np.zeros(1, int)) == [0], "a weak box begins nothing"


def test_classes_do_not_share_numbers():
    tracker = Tracker(frame_rate=25, threshold=0.4)
    for _ in range(3):
        found = tracker.update(boxes(0, 0), np.array([0.9, 0.9]), np.array([0, 2]))
    assert sorted(found) == [1, 2]
