"""Losses against their papers' formulas written out in NumPy, and figures of frequent and rare classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.tasks.classification import Classification, to_float

COUNTS = (100, 30, 10, 1)
LABELS = np.array([0, 1, 2, 3, 0, 3])


class Fixed(nnx.Module):
    """Logits that are the mean of what it sees in each of four stripes."""

    def __call__(self, x):
        return 3 * x.reshape(len(x), 4, -1).mean(-1)


@pytest.fixture(scope="module")
def batch():
    return {"image": np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8), "label": LABELS}


def loss(batch, **options) -> float:
    task = Classification(counts=COUNTS, **options)
    return float(task.loss(Fixed(), batch, jax.random.key(0))[0])


def shares(batch, added=0.0) -> np.ndarray:
    logits = 3 * (batch["image"].astype(np.float64) / 127.5 - 1).reshape(6, 4, -1).mean(-1) + added
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_the_plain_loss_and_label_smoothing(batch):
    own = np.log(shares(batch))[range(6), LABELS]
    assert loss(batch) == pytest.approx(-own.mean(), rel=1e-5)
    smoothed = 0.8 * own + 0.2 * np.log(shares(batch)).mean(-1)
    assert loss(batch, label_smoothing=0.2) == pytest.approx(-smoothed.mean(), rel=1e-5)


def test_focal_loss(batch):
    own = shares(batch)[range(6), LABELS]
    assert loss(batch, focal=2.0) == pytest.approx(-((1 - own) ** 2 * np.log(own)).mean(), rel=1e-5)


def test_class_balanced_loss(batch):
    own = shares(batch)[range(6), LABELS]
    weights = np.array([(1 - 0.9) / (1 - 0.9**count) for count in COUNTS])
    weights = weights * len(COUNTS) / weights.sum()
    assert loss(batch, class_balanced=0.9) == pytest.approx(-(weights[LABELS] * np.log(own)).mean(), rel=1e-5)


def test_logit_adjustment(batch):
    own = shares(batch, added=1.5 * np.log(np.array(COUNTS) / sum(COUNTS)))[range(6), LABELS]
    assert loss(batch, logit_adjustment=1.5) == pytest.approx(-np.log(own).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_examples_have_the_targets_of_what_is_in_them(kind):
    """Of one-coloured pictures, each class a colour, the mean colour says what shares a mixture has."""
    x = jnp.broadcast_to(jnp.eye(4)[:, None, None, :], (4, 16, 16, 4))
    mix = jax.jit(Classification(**{kind: 0.7})._mixed)
    seen = set()
    for seed in range(20):
        mixed, targets = mix(x, jnp.eye(4), jax.random.key(seed))
        np.testing.assert_allclose(mixed.mean((1, 2)), targets, atol=1e-6)
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
        pure = np.isin(np.round(np.asarray(mixed), 6), (0, 1)).all()
        assert pure or kind == "mixup"
        seen.add(round(float(targets.max()), 3))
    assert len(seen) > 5


def test_figures_of_frequent_and_rare_classes(batch):
    task, _, _ = Classification().prepared(type("Source", (), {"counts": COUNTS}), None)
    figures = task.evaluate(Fixed(), batch, jax.random.key(0))
    right = shares(batch).argmax(-1) == LABELS
    np.testing.assert_array_equal(figures["top1"], right)
    concerned = {name: np.asarray(figures[f"top1_{name}"][1]) for name in ("head", "middle", "tail")}
    np.testing.assert_array_equal(concerned["head"], np.isin(LABELS, [0, 1]))
    np.testing.assert_array_equal(concerned["middle"], LABELS == 2)
    np.testing.assert_array_equal(concerned["tail"], LABELS == 3)
    assert "top1_head" not in Classification().evaluate(Fixed(), batch, jax.random.key(0))


def test_pixels_are_scaled_as_a_card_says():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    mean, std = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)
    expected = (pixels.astype(np.float64) - mean) / std
    np.testing.assert_allclose(to_float(pixels, mean, std), expected, rtol=1e-6)
