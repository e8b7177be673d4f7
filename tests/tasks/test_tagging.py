"""Figures of taggers against brute force and scikit-learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from tests.data.test_youtube8m import example, write
from zoo import configs, publish, run_log, train
from zoo.data import open_dataset
from zoo.errors import UserError
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
        order = np.argsort(-probabilities, axis=1)
        sure, right = (np.take_along_axis(table, order, axis=1) for table in (probabilities, classes))
        wanted = classes.sum(axis=1)
        found = global_average_precision(sure[:, :5], right[:, :5], wanted)
        assert found == pytest.approx(brute_force(probabilities, classes, 5))
        whole = average_precision_score(classes.ravel(), probabilities.ravel())
        assert global_average_precision(sure, right, wanted) == pytest.approx(whole)
    assert global_average_precision(sure, 0 * right, 0 * wanted) == 0


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


def test_a_training_tells_the_global_average_precision_of_all_held_out_videos(tmp_path, monkeypatch):
    """Seven held-out videos in batches of three: what fills up the last batch does not count."""
    rng = np.random.default_rng(2)
    for part, count in (("train", 4), ("validate", 7)):
        labels = [rng.choice(3862, rng.integers(0, 4), replace=False).tolist() for _ in range(count)]
        write(tmp_path / f"{part}0.tfrecord", *(example(3, each, seed)[0] for seed, each in enumerate(labels)))
    small = dataclasses.replace(
        configs.experiment("youtube8m"),
        options={"hidden_features": 4, "num_layers": 1, "num_experts": 1},
        dataset_options={"num_frames": 3},
        steps=2,
        batch_size=3,
    )
    monkeypatch.setattr(configs, "experiment", lambda name, preset: small)
    train.main(["--model", "youtube8m", "--data", str(tmp_path), "--runs", str(tmp_path / "runs")])
    (run,) = (tmp_path / "runs").iterdir()
    found = run_log.read_metrics(run / "metrics.jsonl")[-1]

    _, model = publish.trained(run)
    held_out = open_dataset("youtube8m", "test", data=str(tmp_path), num_frames=3)
    items = [held_out[index] for index in range(7)]
    logits = model(*(np.stack([item[name] for item in items]) for name in ("features", "frames")))
    classes = np.stack([item["classes"] for item in items])
    assert found["gap"] == pytest.approx(brute_force(np.asarray(jax.nn.sigmoid(logits)), classes, 20), rel=1e-5)
    with pytest.raises(UserError, match="say where youtube8m lies with --data DIR"):
        train.main(["--model", "youtube8m", "--runs", str(tmp_path / "runs")])
