"""Peaks, overlaps and doubles against brute force and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.tasks.boxes import overlaps, peaks, without_doubles


def test_peaks_equal_brute_force():
    rng = np.random.default_rng(0)
    answers = rng.normal(size=(2, 6, 7, 3 + 4)).astype(np.float32)
    boxes, scores, classes = map(np.asarray, peaks(jnp.asarray(answers), stride=4, count=12))
    for image in range(2):
        expected = []
        for row in range(6):
            for column in range(7):
                for kind in range(3):
                    near = answers[image, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2, kind]
                    if answers[image, row, column, kind] == near.max():
                        left, top, right, bottom = answers[image, row, column, 3:]
                        box = (4 * column - left, 4 * row - top, 4 * column + right, 4 * row + bottom)
                        expected.append((1 / (1 + np.exp(-answers[image, row, column, kind])), kind, box))
        expected = sorted(expected, reverse=True)[:12]
        np.testing.assert_allclose(scores[image, : len(expected)], [each[0] for each in expected], rtol=1e-5)
        np.testing.assert_array_equal(classes[image, : len(expected)], [each[1] for each in expected])
        np.testing.assert_allclose(boxes[image, : len(expected)], [each[2] for each in expected], rtol=1e-4, atol=1e-4)
        assert (scores[image, len(expected) :] == 0).all()


def test_overlaps():
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [1, 1, 1, 1]])
    assert overlaps(boxes, boxes) == pytest.approx(
        np.array([[1, 4 / 28, 0, 0], [4 / 28, 1, 4 / 28, 0], [0, 4 / 28, 1, 0], [0, 0, 0, 0]])
    )
    assert overlaps(boxes, np.zeros((0, 4))).shape == (4, 0)


def test_doubles_go_and_others_stay():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [20, 0, 30, 10]])
    kept = without_doubles(boxes, np.array([0.5, 0.9, 0.4, 0.1]), np.array([0, 0, 1, 0]), 0.5)
    np.testing.assert_array_equal(kept, [1, 2, 3])  # best first; another class is no double
    assert len(without_doubles(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0.5)) == 0
