"""The future of a video, asked of a small ConvLSTM."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import clips
from zoo import configs, evaluate, kernels, publish, registry, run_log, train
from zoo.configs.convlstm_moving_digits import card
from zoo.data.video_clips import VideoClips
from zoo.errors import UserError
from zoo.frame_predictor import FramePredictor
from zoo.registry import ModelCard, WeightSource

OPTIONS = {"widths": (8,), "kernel_size": 3}


@pytest.fixture(autouse=True)
def plain_kernels():
    with kernels.prefer("xla"):
        yield


def predictor(**options) -> FramePredictor:
    told = card("A small one.", 0) | {"metrics": {}, "parameters": 0, "flops": 0}
    source = WeightSource("checkpoint", {})
    made = ModelCard(name="convlstm_small", arch="convlstm", options=OPTIONS | options, source=source, **told)
    model = registry.create("convlstm", **OPTIONS, **options)
    model.eval()
    return FramePredictor(made, model)


def moving(channels: int = 1) -> np.ndarray:
    """uint8 [5, 16, 24, channels]: a bar that moves to the right."""
    frames = np.zeros((5, 16, 24, channels), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 2 + number : 6 + number] = 200
    return frames


def test_frames_go_on_for_as_long_as_is_asked():
    asked = predictor()
    found = asked.predict_frames(moving(), 20)
    assert (found.shape, found.dtype) == ((20, 16, 24, 1), np.uint8)
    raw = asked.model(jnp.asarray(moving()[None] / 255, jnp.float32), 20)[0]
    np.testing.assert_allclose(found, np.clip(raw, 0, 1) * 255, atol=0.6)


def test_colours_are_made_grey_and_grey_three_colours():
    grey, coloured = predictor(), predictor(channels=3)
    np.testing.assert_array_equal(grey.predict_frames(moving(3), 2), grey.predict_frames(moving(1), 2))
    np.testing.assert_array_equal(coloured.predict_frames(moving(1), 2), coloured.predict_frames(moving(3), 2))


def test_a_video_file_is_seen_at_the_card_s_size(tmp_path):
    frames = np.broadcast_to(np.arange(0, 200, 10, np.uint8).reshape(20, 1, 1, 1), (20, 64, 80, 3))
    path = clips.write_clip(tmp_path / "clip.mkv", frames, codec="ffv1", fps=10)
    asked = predictor()
    grey = np.ascontiguousarray(frames[-10:, :, :64, :1])
    np.testing.assert_array_equal(asked.predict_frames(path, 3), asked.predict_frames(grey, 3))


def test_what_cannot_be_gone_on_from_is_told():
    asked = predictor()
    with pytest.raises(UserError, match="0 frames cannot be predicted; ask for 1 or more"):
        asked.predict_frames(moving(), 0)
    with pytest.raises(UserError, match="1 frames are not enough to go on from; give 2 or more"):
        asked.predict_frames(moving()[:1], 5)
    with pytest.raises(UserError, match="frames of 15x24 do not divide by 4; resize or crop them, say to 16x24"):
        asked.predict_frames(moving()[:, :15], 5)
    with pytest.raises(
        UserError, match=r"a context is uint8 \[time, height, width, 1 or 3\], not float64 \[5, 16, 24, 1\]"
    ):
        asked.predict_frames(moving() / 255, 5)
    for leaf in jax.tree.leaves(nnx.state(asked.model), is_leaf=lambda value: isinstance(value, nnx.Param)):
        leaf.set_value(leaf[...] * np.nan)
    with pytest.raises(UserError, match="predicted frame 0 is not a number; load convlstm_small anew, or in float32"):
        asked.predict_frames(moving(), 5)


@pytest.mark.slow
def test_a_run_is_published_and_asked(tmp_path, monkeypatch):
    """Small, on digits that need no package: scheduled sampling ends half-way, and the model loads by its name."""
    small = dataclasses.replace(
        configs.experiment("convlstm_moving_digits"),
        options=OPTIONS,
        dataset_options={"num_frames": 6, "size": 16},
        task_options={"context": 3, "shown": 2},
        steps=4,
        batch_size=2,
        evaluation_items=4,
        evaluate_every=4,
        log_every=1,
    )
    train.train(small, tmp_path / "run")
    rows = run_log.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["given"] for row in rows if row["kind"] == "train"][::2] == [1.0, 0.0]
    (told,) = (row for row in rows if row["kind"] == "test")
    assert told["mse"] == pytest.approx(16 * 16 * told["loss"], rel=1e-5)
    assert (tmp_path / "run" / "strips-000004.png").is_file()

    publish.main([str(tmp_path / "run"), "--name", "convlstm_moving_digits", "--out", str(tmp_path / "cards")])
    monkeypatch.setattr(registry, "checkpoints_folder", lambda: tmp_path / "cards")
    asked = zoo.load("convlstm_moving_digits")
    assert asked.card.options == {"widths": [8], "kernel_size": 3}
    assert asked.card.metrics["mse"] == pytest.approx(told["mse"], abs=1e-4)
    _, model = publish.trained(tmp_path / "run")
    raw = model(jnp.asarray(moving()[None] / 255, jnp.float32), 20)[0]
    np.testing.assert_allclose(asked.predict_frames(moving(), 20) / 255, np.clip(raw, 0, 1), atol=0.01)
    evaluated(asked, tmp_path)


def evaluated(asked: FramePredictor, tmp_path: Path) -> None:
    """`zoo evaluate` of a published model on two videos in a folder says what a sum over their pixels does."""
    rng = np.random.default_rng(0)
    for number in range(2):
        frames = rng.integers(0, 256, (30, 64, 80, 3), np.uint8)
        (tmp_path / "noise" / "val" / "any").mkdir(parents=True, exist_ok=True)
        clips.write_clip(tmp_path / "noise" / "val" / "any" / f"{number}.mkv", frames, codec="ffv1", fps=10)
    dataset = f"folder:{tmp_path / 'noise'}"
    command = ["--model", "convlstm_moving_digits", "--out", str(tmp_path / "out")]
    evaluate.main([*command, "--dataset", dataset])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    sees = asked.card.preprocessing | {"num_frames": 20}
    source = VideoClips(dataset, "test", preprocessing=sees, channels=1)
    videos = np.stack([source[index]["video"] for index in range(2)]) / 255
    seen, truth = np.split(videos, [10], axis=1)
    ahead = np.asarray(asked.model(jnp.asarray(seen, jnp.float32), 10))
    assert found["mse"] == pytest.approx(np.square(ahead - truth).sum((2, 3, 4)).mean(), rel=1e-4)
    assert found["mse_last_frame"] == pytest.approx(np.square(seen[:, -1:] - truth).sum((2, 3, 4)).mean(), rel=1e-4)
    assert found["by_frame"]["mae"] == pytest.approx(np.abs(ahead - truth).sum((2, 3, 4)).mean(0).tolist(), rel=1e-4)
    assert found["videos"] == 2
    assert (tmp_path / "out" / "errors.png").stat().st_size > 1000

    with pytest.raises(UserError, match="on the card of convlstm_moving_digits are of moving_digits; leave out"):
        evaluate.main([*command, "--dataset", dataset, "--verify"])
    with pytest.raises(UserError, match="--clips 2 is for classifiers; leave it out for convlstm_moving_digits"):
        evaluate.main([*command, "--clips", "2"])
    path = tmp_path / "cards" / "convlstm_moving_digits" / "card.json"
    told = {"dataset": dataset, "videos": 2, "relative_tolerance": 0.005}
    figures = {name: round(found[name], 6) for name in ("mse", "ssim", "psnr")}
    path.write_text(dataclasses.replace(asked.card, verification=told, metrics=figures).to_json())
    evaluate.main([*command, "--verify"])
    figures["ssim"] *= 1.01
    path.write_text(dataclasses.replace(asked.card, verification=told, metrics=figures).to_json())
    with pytest.raises(UserError, match=r"ssim of convlstm_moving_digits is .* more than 0\.5% apart"):
        evaluate.main([*command, "--verify"])


def test_only_networks_with_classes_are_made_with_the_data_s():
    assert "num_classes" not in configs.experiment("simvp_moving_digits").model_options(10)
    assert configs.experiment("video_gen").model_options(7)["num_classes"] == 7
    assert configs.experiment("cnn_2d").model_options(7) == {"num_classes": 7} | configs.experiment("cnn_2d").options
