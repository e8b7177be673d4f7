"""Training from the command line: it learns, stops, dies and goes on, and says plainly what is wrong."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import configs, registry, run_log, train, train_arguments
from zoo.data import open_dataset
from zoo.errors import UserError
from zoo.parallel import Parallel
from zoo.run_checkpoints import RunCheckpoints

pytestmark = pytest.mark.usefixtures("compiled_programs")  # of the same two models, again and again

SMALL_GENERATOR = dataclasses.replace(
    configs.experiment("video_gen"),
    options={"widths": (32,), "patch": 4},
    dataset_options={"num_frames": 2, "size": 16},
    task_options={"clip_shape": (2, 16, 16, 1), "num_steps": 2, "shown": ((1,), (2, 3))},
    steps=24,
    batch_size=4,
    evaluation_items=6,
    log_every=1,
    evaluate_every=12,
    checkpoint_every=4,
)
SMALL_LSTM = dataclasses.replace(configs.experiment("lstm"), steps=12, checkpoint_every=4, log_every=1)


def begin(folder: Path, config: configs.TrainConfig) -> Path:
    """A run's folder as the command makes it: a config and nothing else."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    return folder


def command(folder: Path, model: str) -> list[str]:
    return [sys.executable, "-m", "zoo.train", "--model", model, "--resume", str(folder)]


def figures(folder: Path) -> list[dict]:
    rows = run_log.read_metrics(folder / "metrics.jsonl")
    return [row for row in rows if row["kind"] != "speed"]


def last_state(folder: Path) -> list[np.ndarray]:
    checkpoints = RunCheckpoints(folder / "checkpoints")
    return jax.tree.leaves(checkpoints.checkpointer.load(checkpoints.checkpointer.latest.step))


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    while not any(row["step"] >= step for row in figures(folder)):
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_it_ends_as_if_nothing_had_happened(tmp_path):
    whole = begin(tmp_path / "whole", SMALL_GENERATOR)
    train.train(SMALL_GENERATOR, whole)
    killed = begin(tmp_path / "killed", SMALL_GENERATOR)
    process = subprocess.Popen(command(killed, "video_gen"), stderr=subprocess.DEVNULL)
    step = random.randint(1, 20)
    wait_for_step(killed, step, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train.train(SMALL_GENERATOR, killed)

    assert figures(killed) == figures(whole), f"killed at step {step}"
    for ours, theirs in zip(last_state(killed), last_state(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("samples-000024.png", "samples-000024.gif", "samples-000024.mp4"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_terminated_it_saves_says_how_to_go_on_and_does(tmp_path):
    folder = begin(tmp_path / "run", dataclasses.replace(SMALL_LSTM, steps=100_000, checkpoint_every=100_000))
    process = subprocess.Popen(command(folder, "lstm"), stderr=subprocess.PIPE, text=True)
    wait_for_step(folder, 3, process)
    process.send_signal(signal.SIGTERM)
    told = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in told
    assert f"--model lstm --resume {folder}" in told
    stopped_at = figures(folder)[-1]["step"]
    assert RunCheckpoints(folder / "checkpoints").checkpointer.latest.step == stopped_at


def test_a_checkpoint_that_a_crash_cut_short_is_not_chosen(tmp_path):
    folder = begin(tmp_path / "run", SMALL_LSTM)
    train.train(dataclasses.replace(SMALL_LSTM, steps=4), folder)
    good = next((folder / "checkpoints").glob("4"))
    half = folder / "checkpoints" / "8.orbax-checkpoint-tmp-1"
    half.mkdir()
    (half / "manifest.ocdbt").write_bytes((good / "state" / "manifest.ocdbt").read_bytes()[:10])
    train.train(dataclasses.replace(SMALL_LSTM, steps=6), folder)
    assert [row["step"] for row in figures(folder) if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    folder = begin(tmp_path / "run", SMALL_LSTM)
    train.train(dataclasses.replace(SMALL_LSTM, steps=4), folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    # The run moves onto a file system that has room for it and for half a checkpoint more.
    script = (
        f'mount -t tmpfs -o size={size * 5 // 4 // 4096 * 4096} tmpfs "$0" && cp -r "$1"/. "$0" && shift && '
        '"$@"; code=$?; ls "$0"/checkpoints; exit $code'
    )
    place = tmp_path / "small"
    place.mkdir()
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command_there = command(place, "lstm")
    done = subprocess.run(
        [*unshare, "sh", "-c", script, str(place), str(folder), *command_there], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "the checkpoint of step 4 stays" in done.stderr
    assert "Traceback" not in done.stderr
    # What was begun has a name of its own, which no restore looks at and the next run clears away.
    assert [name for name in done.stdout.split() if "tmp" not in name] == ["4"]


def test_a_loss_that_is_no_number_stops_with_step_and_batch(tmp_path):
    folder = begin(tmp_path / "run", SMALL_LSTM)
    broken = dataclasses.replace(SMALL_LSTM, learning_rate=1e38, clip_norm=1e38)
    with pytest.raises(UserError, match=r"the loss is \S+ at step \d+, on batch \d+ of digits \(seed 0"):
        train.train(broken, folder)
    saved = RunCheckpoints(folder / "checkpoints").checkpointer
    assert all(np.isfinite(leaf).all() for step in saved.checkpoints for leaf in jax.tree.leaves(saved.load(step.step)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--model", "video_gan"],
            "no model to train is called 'video_gan'; did you mean video_gen or ",
        ),
        (["--model", "lstm", "--dataset", "digit"], "did you mean digits or digit_motion or"),
        (
            ["--model", "speech_ctc", "--dataset", "digits"],
            "digits has image, label, and no sound, samples, symbols for speech; take another data set",
        ),
        (["--model", "lstm", "--dataset", "moving_digits"], "has video, classes, and no label for classification"),
        (["--model", "lstm", "--preset", "huge"], "lstm has no preset 'huge'; it has default"),
        (["--model", "lstm", "--steps", "0"], "steps is 0; it must be above 0"),
        (["--model", "lstm", "--compute-dtype", "float8"], "no compute dtype 'float8'"),
        (["--model", "lstm", "--resume", "nowhere"], "nowhere is not the folder of a run"),
    ],
)
def test_a_wrong_request_is_told(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        train.main(arguments)
    assert not any(tmp_path.iterdir()), "a run that never began leaves nothing"


def test_a_run_is_resumed_as_what_it_is(tmp_path):
    folder = begin(tmp_path / "run", SMALL_LSTM)
    for other in ("video_gen", "video_gen_moving_digits", "resnet18"):
        with pytest.raises(UserError, match=f"is a run of lstm, not of {other}"):
            train.main(["--model", other, "--resume", str(folder)])
    with pytest.raises(UserError, match="is a run of lstm, not of video_gen"):
        train.main(["--config", "video_gen", "--resume", str(folder)])
    with pytest.raises(UserError, match="was begun with steps 12, which --resume keeps; leave out --steps"):
        train.main(["--model", "lstm", "--resume", str(folder), "--steps", "50"])


def test_the_command_that_began_a_run_goes_on_with_it(tmp_path):
    config = configs.experiment("simvp_moving_digits")
    (folder := tmp_path / "run").mkdir()
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    arguments = train_arguments.Arguments(model="simvp_moving_digits", resume=folder)
    assert train_arguments.requested_run(arguments) == (configs.TrainConfig.from_json(config.to_json()), folder)


def test_bfloat16_computes_with_float32_parameters(tmp_path):
    config = dataclasses.replace(SMALL_LSTM, compute_dtype="bfloat16")
    state = train.train(config, begin(tmp_path / "run", config))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state["params"])} == {"float32"}
    exact = train.train(SMALL_LSTM, begin(tmp_path / "exact", SMALL_LSTM))
    pairs = zip(*(jax.tree.leaves(each["params"]) for each in (state, exact)), strict=True)
    assert any((ours != theirs).any() for ours, theirs in pairs), "the computation was rounded"


@pytest.mark.slow
def test_lstm_reaches_95_percent_of_held_out_digits(tmp_path):
    train.main(["--model", "lstm", "--runs", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert figures(folder)[-1]["kind"] == "test"
    assert figures(folder)[-1]["top1"] >= 0.95
    assert (folder / "curves.png").stat().st_size > 10_000
    assert list(folder.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_cnn_2d_beats_the_nearest_class_mean(tmp_path):
    train.main(["--model", "cnn_2d", "--steps", "100", "--runs", str(tmp_path)])  # half of the preset's
    (folder,) = tmp_path.iterdir()
    splits = {split: open_dataset("digits", split, size=64, channels=1) for split in ("train", "test")}
    pixels = {split: data.images.reshape(len(data), -1).astype(float) for split, data in splits.items()}
    means = np.stack([pixels["train"][splits["train"].labels == digit].mean(0) for digit in range(10)])
    nearest = ((pixels["test"][:, None] - means) ** 2).sum(-1).argmin(-1)
    baseline = (nearest == splits["test"].labels).mean()
    assert 0.8 < baseline < 0.93, "the baseline stated in zoo/configs/cnn_2d.py"
    assert figures(folder)[-1]["top1"] > baseline + 0.05


def test_a_network_without_classes_starts_from_a_published_one():
    config = configs.experiment("video_vae_moving_digits", "decoder")
    run = train._assembled(config, Parallel())
    published = nnx.state(zoo.load("video_vae_moving_digits").model, nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, run.state["params"], published)


def test_every_experiment_names_a_registered_model():
    for model in configs.trainable():
        assert configs.experiment(model).model in registry.architectures()
        restored = configs.TrainConfig.from_json(json.loads(json.dumps(configs.experiment(model).to_json())))
        assert restored == configs.experiment(model)
