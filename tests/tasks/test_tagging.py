"""Figures of taggers against brute force and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from zoo.metrics.tagging import global_average_precision
from zoo.tasks.tagging import Tagging


def brute_force(probabilities, classes, top):
    answers = []
    for shares, right in zip(probabilities, classes, strict=True):
        for label in sorted(range(len(shares)), key=lambda label: -shares[label])[:top]:
            answers.append((shares[label], right[label]))
    answers.sort(key=lambda answer: -answer[0])
    total, hits = 0.0, 0
    for place, (_, right) in enumerate(answers, 1):
        hits += right
        total += right * hits / place
    return total / sum(min(top, right.sum()) for right in classes)


def test_global_average_precision():
    rng = np.random.default_rng(0)
    for _ in range(10):
        probabilities, classes = rng.random((7, 12)), rng.random((7, 12)) < 0.3
        found = global_average_precision(probabilities, classes, top=5)
        assert found == pytest.approx(brute_force(probabilities, classes, 5))
        whole = average_precision_score(classes.ravel(), probabilities.ravel())
        assert global_average_precision(probabilities, classes, top=12) == pytest.approx(whole)


def test_loss_and_figures():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(6, 9)).astype(np.float32)
    classes = (rng.random((6, 9)) < 0.3).astype(np.float32)
    classes[2] = 0
    batch = {"features": jnp.asarray(logits)[:, None], "frames": jnp.ones(6, int), "classes": classes}

    def model(features, frames):
        return features[:, 0] * frames[:, None]

    figures = Tagging().evaluate(model, batch, jax.random.key(0))
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for row in range(6):
        both = np.stack([1 - shares[row], shares[row]], axis=1)
        assert figures["loss"][row] == pytest.approx(9 * log_loss(classes[row], both, labels=[0, 1]), rel=1e-5)
        assert figures["hit1"][row] == classes[row, logits[row].argmax()]
        count = int(classes[row].sum())
        best = np.argsort(-logits[row])[:count]
        assert figures["precision"][1][row] == (count > 0)
        if count:
            assert figures["precision"][0][row] == pytest.approx(classes[row, best].mean())
