"""Agreement's figures against scikit-learn and SciPy, and what a student is asked of a clip's first part."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import rel_entr, softmax
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from benchmarks import agreement


def test_figures():
    rng = np.random.default_rng(0)
    wholes, answers = rng.normal(size=(40, 9)) * 3, rng.normal(size=(40, 9))
    answers[:20] += wholes[:20]
    labels, found = wholes.argmax(-1), agreement.figures(wholes, answers)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, answers, k=k, labels=range(9))
        assert float(found[f"top{k}"]) == pytest.approx(expected, abs=5e-4)
    right = answers.argmax(-1)
    assert float(found["top1 by label"]) == pytest.approx(balanced_accuracy_score(labels, right), abs=5e-4)
    sure = softmax(wholes, axis=-1).max(-1) >= 0.5
    assert int(found["sure"]) == sure.sum()
    assert float(found["top1 where sure"]) == pytest.approx((right == labels)[sure].mean(), abs=5e-4)
    divergence = rel_entr(softmax(wholes, axis=-1), softmax(answers, axis=-1)).sum(-1).mean()
    assert float(found["divergence"]) == pytest.approx(divergence, abs=5e-4)


def test_calibration_error_of_answers_as_good_as_they_are_sure():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    right = rng.random(len(confidence)) < confidence
    assert agreement.calibration_error(confidence, right) < 0.01
    assert agreement.calibration_error(np.full(1000, 0.95), np.arange(1000) < 650) == pytest.approx(0.3)


def test_of_a_first_part_a_student_is_asked_while_the_video_goes_on():
    class Student(nnx.Module):
        window = 4

        def along(self, x):
            return jnp.stack([x.sum((1, 2, 3, 4)), x[:, 0, 0, 0, 0]], -1)[:, None], None

        def __call__(self, x):
            return -self.along(x)[0][:, -1]

    logits = agreement._compiled(Student())
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1, 1)
    filled = 0 + 1 + 2 + 3 + 4 + 5 + 5 + 5
    np.testing.assert_array_equal(logits(x, ends=False), [[filled, 0]])
    np.testing.assert_array_equal(logits(x, ends=True), [[-filled, 0]])
    assert agreement.beginning(np.zeros((1, 32, 1, 1, 3)), 0.25).shape[1] == 9
    assert agreement.beginning(np.zeros((1, 32, 1, 1, 3)), 0.75).shape[1] == 24
