"""A run becomes a model that loads by its name and says what the trained network says."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import configs, publish, registry, train
from zoo.errors import UserError

SMALL = dataclasses.replace(
    configs.experiment("cnn_lstm_motion"), steps=2, batch_size=2, evaluation_items=4, evaluate_every=2
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train.train(SMALL, folder)
    return folder


def test_a_published_run_loads_by_its_name(run, tmp_path, monkeypatch):
    publish.main([str(run), "--name", "cnn_lstm_motion", "--out", str(tmp_path)])
    monkeypatch.setattr(registry, "checkpoints_folder", lambda: tmp_path)
    predictor = zoo.load("cnn_lstm_motion")
    _, model = publish.trained(run)
    clips = zoo.data.open_dataset("digit_motion", "test", num_frames=8, size=32)
    video = clips[0]["video"]
    x = predictor.preprocess(video)
    np.testing.assert_allclose(x, video[None] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(predictor.model(x), model(jnp.asarray(x)), atol=2e-2)
    card = zoo.card("cnn_lstm_motion")
    assert set(card.metrics) == {"top1"}
    assert card.labels == predictor.labels
    assert len(card.labels) == 16
    # Half precision, and nothing half-written beside it.
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 2.5 * card.parameters
    assert [path.name for path in tmp_path.iterdir()] == ["cnn_lstm_motion"]


def test_a_run_may_replace_the_model_that_it_started_from(run, tmp_path, monkeypatch):
    further = shutil.copytree(run, tmp_path / "run")
    (further / "config.json").write_text(dataclasses.replace(SMALL, start={"": "cnn_lstm_motion"}).to_json())
    publish.main([str(further), "--name", "cnn_lstm_motion", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(registry, "checkpoints_folder", lambda: tmp_path / "out")
    zoo.load("cnn_lstm_motion")  # which wants nothing of the one before
    assert zoo.card("cnn_lstm_motion").source.beneath is None


def test_what_a_model_stood_on_its_successor_stands_on():
    further = dataclasses.replace(SMALL, start={"": "video_gen_moving_digits"})
    assert publish._stands_on(further, "video_gen_moving_digits") == {"codec": "video_vae_moving_digits"}
    assert publish._stands_on(further, "another") == {"": "video_gen_moving_digits"}


def test_what_did_not_change_is_not_stored():
    tree = {"part": {"a": np.ones(3), "inner": {"b": np.zeros(2)}}, "own": np.ones(1)}
    publish._leave_out(tree, ("part",), {"a": np.zeros(3), "inner": {"b": np.zeros(2)}})
    assert list(tree["part"]) == ["a"]
    assert "own" in tree
    publish._leave_out(tree, ("part",), {"a": np.ones(3)})
    assert list(tree) == ["own"], "an empty part would be looked for in the checkpoint"


def test_a_mistake_is_told(run, tmp_path):
    for arguments, words in (
        ([str(run), "--name", "cnn_lstm_moton"], "did you mean cnn_lstm_motion"),
        ([str(tmp_path), "--name", "cnn_lstm_motion"], "is not the folder of a run: it has no config.json"),
    ):
        with pytest.raises(UserError, match=words):
            publish.main([*arguments, "--out", str(tmp_path / "out")])
    (run / "config.json").write_text(dataclasses.replace(SMALL, steps=3).to_json())
    with pytest.raises(UserError, match="is not at its end, step 3; go on with zoo train --resume"):
        publish.main([str(run), "--name", "cnn_lstm_motion", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_flops_are_those_of_the_literature_and_of_every_turn_of_a_loop():
    clip = (1, 64, 224, 224, 3)
    model = nnx.eval_shape(lambda: registry.create("i3d"))
    model.eval()
    assert publish.flops(model, clip) == zoo.card("i3d_kinetics400").flops

    class Loop(nnx.Module):
        def __call__(self, x):
            return jax.lax.scan(lambda carry, row: (carry @ row, None), jnp.eye(4), x[0])[0]

    assert publish.flops(Loop(), (1, 7, 4, 4)) == 7 * 2 * 4**3
