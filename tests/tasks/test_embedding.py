"""InfoNCE against a loop, precision against scikit-learn, and vectors that learn to find copies again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.metrics import average_precision_score

from tests import tiny
from tests.test_fine_tuning import folder, run  # noqa: F401
from zoo import registry, run_log, train
from zoo.errors import UserError
from zoo.metrics.retrieval import mean_average_precision
from zoo.models import cnn_lstm
from zoo.tasks.embedding import Embedding, SeenCopies, info_nce


def brute_force(first, second, temperature):
    """SimCLR's equation 1, term by term; of each pair the mean of both ways, and how often the partner is nearest."""
    vectors = np.concatenate([first, second]).astype(np.float64)
    pairs = len(first)
    losses, nearest = np.zeros(pairs), np.zeros(pairs)
    for i, ours in enumerate(vectors):
        likeness = {
            j: ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
            for j, theirs in enumerate(vectors)
            if j != i
        }
        partner = (i + pairs) % (2 * pairs)
        total = sum(np.exp(value / temperature) for value in likeness.values())
        losses[i % pairs] -= np.log(np.exp(likeness[partner] / temperature) / total) / 2
        nearest[i % pairs] += (max(likeness, key=likeness.__getitem__) == partner) / 2
    return losses, nearest


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_info_nce(temperature):
    first, second = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    losses, nearest = info_nce(jnp.asarray(first), jnp.asarray(second), temperature)
    wanted = brute_force(first, second, temperature)
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-4)
    np.testing.assert_array_equal(nearest, wanted[1])


def test_what_fills_up_a_batch_is_nothing_to_be_told_from():
    first, second = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 3)), jnp.float32)
    losses, nearest = info_nce(first.at[4:].set(first[3]), second, 0.1, jnp.array([1, 1, 1, 1, 0, 0]))
    alone = info_nce(first[:4], second[:4], 0.1)
    np.testing.assert_allclose(losses[:4], alone[0], rtol=1e-5)
    np.testing.assert_array_equal(nearest[:4], alone[1])
    assert np.isfinite(losses).all()


def test_one_clip_is_told_from_nothing():
    with pytest.raises(UserError, match="take a --batch-size of 2 or more"):
        info_nce(jnp.ones((1, 3)), jnp.ones((1, 3)), 0.1)


def test_mean_average_precision():
    vectors = np.random.default_rng(2).normal(size=(7, 4, 3))
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    wanted = [
        average_precision_score(np.arange(7) == clip, unit[:, 0] @ unit[clip, copy])
        for clip in range(7)
        for copy in (1, 2, 3)
    ]
    assert mean_average_precision(vectors) == pytest.approx(np.mean(wanted))
    assert mean_average_precision(np.ones((5, 2, 3))) == 1 / 5, "what is all the same finds nothing"


class Means(nnx.Module):
    feature_size = 6

    def __init__(self, num_classes, *, rngs):
        self.logits = nnx.Linear(6, num_classes, rngs=rngs)

    def features(self, x):
        return x.reshape(len(x), -1)[:, :6]

    def __call__(self, x):
        return self.logits(self.features(x))


@pytest.fixture
def embedder(monkeypatch):
    monkeypatch.setitem(cnn_lstm.CLIP_CNNS, "means", Means)
    return registry.create("embedder", backbone="means", num_classes=3)


def test_an_untrained_embedder_compares_as_its_backbone(embedder):
    features = jax.random.normal(jax.random.key(0), (4, 6)) * jnp.array([[1], [2], [1e-3], [50]])
    found = np.asarray(embedder.project(features))
    np.testing.assert_allclose(found, features / np.sqrt(np.square(features).mean(-1, keepdims=True)), rtol=1e-5)
    np.testing.assert_array_equal(embedder.project(jnp.zeros((1, 6))), np.zeros((1, 6)))
    video = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 3))
    np.testing.assert_allclose(embedder.features(video), embedder.project(embedder.backbone.features(video)))
    np.testing.assert_allclose(embedder(video), embedder.backbone(video))
    with pytest.raises(UserError, match="no backbone is called 'i3e'; did you mean i3d"):
        registry.create("embedder", backbone="i3e")


def clips_seen(count: int, seed: int) -> np.ndarray:
    """Copies in whose features three numbers tell the clip, and three larger ones are whatever was altered."""
    rng = np.random.default_rng(seed)
    told = rng.normal(size=(count, 1, 3)).repeat(4, axis=1)
    return np.concatenate([told, 3 * rng.normal(size=(count, 4, 3))], axis=-1).astype(np.float32)


def test_after_some_steps_copies_of_a_clip_are_nearer_than_others(embedder):
    task = Embedding(temperature=0.2)
    graph, params, rest = nnx.split(embedder, nnx.Param, ...)
    optimizer = optax.adam(0.02)

    @jax.jit
    def step(params, state, batch, key):
        def loss(params):
            return task.loss(nnx.merge(graph, params, rest), {"copies": batch}, key)

        (value, figures), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value, figures

    held_out = jnp.asarray(clips_seen(20, 1))
    batch = {"copies": held_out, "weight": jnp.ones(20)}
    before = task.evaluate(embedder, batch, jax.random.key(0))
    state, losses = optimizer.init(params), []
    for number, copies in enumerate(np.array_split(clips_seen(600, 0), 20) * 8):
        params, state, value, _ = step(params, state, copies, jax.random.key(number))
        losses.append(float(value))
    after = task.evaluate(nnx.merge(graph, params, rest), batch, jax.random.key(0))
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 1
    assert after["loss"].mean() < before["loss"].mean() - 1
    untold, told = (task.over_all(jax.tree.map(np.asarray, each["answers"])) for each in (before, after))
    assert told["mAP_backbone"] == pytest.approx(untold["mAP"])
    assert untold["mAP"] < 0.4
    assert told["mAP"] > 0.9


def test_two_copies_that_differ_are_drawn_of_each_clip(embedder):
    """Four vectors a clip that are at right angles: the same one twice would be nearest."""
    copies = jnp.tile(jnp.eye(6)[None, :4], (8, 1, 1)) + 1e-3 * jax.random.normal(jax.random.key(0), (8, 4, 6))
    drawn = set()
    for number in range(20):
        chosen = []

        class Spy:
            def project(self, x, chosen=chosen):
                chosen.append(np.asarray(x).argmax(-1))
                return x

        Embedding().loss(Spy(), {"copies": copies}, jax.random.key(number))
        assert (chosen[0][:, 0] != chosen[0][:, 1]).all()
        drawn |= {tuple(pair) for pair in chosen[0].tolist()}
    assert len(drawn) == 12


class Clips:
    num_classes = 3

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return {"video": np.random.default_rng(index).integers(0, 256, (4, 8, 8, 3), np.uint8)}


def test_what_a_published_model_sees_of_copies_is_kept(cards, monkeypatch):
    from zoo import predictor

    tiny.publish_checkpoint(cards)
    _, seen, held_out = Embedding(backbone="tiny_colours", copies=3).prepared(Clips(2), Clips(1))
    found = seen[1]["copies"]
    published = predictor.load("tiny_colours")
    clip = Clips(2)[1]["video"].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(found[0], published.model.features(jnp.asarray(clip[None]))[0], rtol=1e-5)
    assert found.shape == (3, 5)
    assert len({row.tobytes() for row in found}) == 3
    assert (len(seen), seen.num_classes, len(held_out)) == (2, 3, 1)
    again = SeenCopies(Clips(2), "tiny_colours", 3)
    monkeypatch.setattr(predictor, "load", None)
    np.testing.assert_array_equal(again[1]["copies"], found)
    with pytest.raises(TypeError):
        SeenCopies(Clips(2), "tiny_colours", 4)[1]


def test_a_network_learns_from_videos_without_a_name(folder):  # noqa: F811
    """All of it, its copies made anew in each step; 12 clips of two colours at two brightnesses train."""
    done = run(folder, "--task", "embedding", "--init", "colours", "--steps", "3", "--batch-size", "3")
    row = run_log.read_metrics(done / "metrics.jsonl")[-1]
    assert 0.25 <= row["mAP"] <= 1
    assert {"loss", "top1"} <= row.keys()
    assert "mAP_backbone" not in row


def test_a_network_without_features_cannot_learn_it():
    with pytest.raises(UserError, match="object gives no features to be an embedding"):
        Embedding().loss(object(), {"video": np.zeros((2, 2, 8, 8, 3), np.uint8)}, jax.random.key(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "embeding"], "no model to train is called 'embeding'; did you mean embedding"),
        (["--model", "lstm", "--task", "embedding"], "lstm learns classification, not embedding; leave out --task"),
        (["--task", "embedding", "--dataset", "digits"], "digits has image, label, and no video for embedding"),
    ],
)
def test_mistakes_about_experiments(arguments, message):
    with pytest.raises(UserError, match=message):
        train.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny", "--dataset", "folder:clips", "--task", "detection"], "no task on labelled videos is"),
        (["--model", "tiny", "--dataset", "folder:clips", "--task", "embedding", "--batch-size", "1"], "2 or more a"),
    ],
)
def test_mistakes_about_videos(arguments, message, folder):  # noqa: F811
    with pytest.raises(UserError, match=message):
        train.main(arguments)
