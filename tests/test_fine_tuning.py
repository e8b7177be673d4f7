"""A published network on other classes: what is kept, what learns how fast, when it stops, and clips that break."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.clips import write_clip
from zoo import fine_tuning, publish, registry, run_log, train
from zoo.data import loader, open_dataset
from zoo.errors import UserError
from zoo.optimizers import dotted, make_optimizer
from zoo.run_checkpoints import RunCheckpoints

COLOURS = {"cyan": (0, 255, 255), "yellow": (255, 255, 0)}


@pytest.fixture
def folder(tmp_path, cards, monkeypatch) -> Path:
    """Clips of two colours that the published model does not know, a fifth of them for testing."""
    monkeypatch.chdir(tmp_path)
    tiny.publish_checkpoint(cards)
    for label, colour in COLOURS.items():
        for split, count in (("train", 6), ("val", 2)):
            place = tmp_path / "clips" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                frames = np.full((6, 12, 20, 3), colour, np.uint8) // (1 + number % 2)
                write_clip(place / f"{number}.mkv", frames, fps=10, codec="ffv1")
    return tmp_path / "clips"


def run(folder: Path, *arguments: str) -> Path:
    steps = () if "--steps" in arguments else ("--steps", "60")
    train.main(["--model", "tiny", "--dataset", f"folder:{folder}", *steps, *arguments])
    return max(Path("runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def parameters(run: Path, part: str = "params") -> dict[str, np.ndarray]:
    checkpointer = RunCheckpoints(run / "checkpoints").checkpointer
    state = checkpointer.load(checkpointer.latest.step)
    return {path: np.asarray(value) for path, value in state.items() if path.startswith(f"['{part}']")}


def test_a_new_head_learns_and_a_frozen_trunk_stays(folder):
    done = run(folder, "--init", "colours", "--freeze", "trunk", "--learning-rate", "0.05")
    assert run_log.read_metrics(done / "metrics.jsonl")[-1]["top1"] == 1.0
    told = tiny.weights()
    found = parameters(done)
    assert found["['params']['layers'][1]['kernel'].value"].shape == (5, 2)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found[f"['params']['layers'][0]['{name}'].value"], told[f"layers.0.{name}"])
    statistics = parameters(done, "batch_stats")
    np.testing.assert_array_equal(statistics["['batch_stats']['norm']['mean'].value"], told["norm.mean"])
    config = json.loads((done / "config.json").read_text())
    assert config["start"] == {"": "tiny_colours"}
    assert config["dataset_options"]["preprocessing"] == tiny.PREPROCESSING


def test_without_freezing_all_learns(folder):
    done = run(folder, "--init", "tiny_colours", "--steps", "3")
    told, found = tiny.weights(), parameters(done)
    assert (found["['params']['layers'][0]['kernel'].value"] != told["layers.0.kernel"]).any()
    statistics = parameters(done, "batch_stats")
    assert (statistics["['batch_stats']['norm']['mean'].value"] != told["norm.mean"]).any()


def test_layers_learn_the_slower_the_further_from_the_head(cards):
    model = registry.create("tiny", num_classes=2)
    config = dataclasses.replace(fine_tuning.fine_tuning("tiny", "folder:x", None, None), layer_decay=0.5)
    shares = fine_tuning.learning_shares(config, model, (1, 4, 8, 8, 3))
    assert shares == {
        "layers.0.kernel": 0.5, "layers.0.bias": 0.5, "norm.scale": 0.5, "norm.bias": 0.5,
        "layers.1.kernel": 1.0, "layers.1.bias": 1.0,
    }  # fmt: skip
    params = nnx.state(model, nnx.Param)
    gradients = jax.tree.map(np.ones_like, params)
    steps = []
    for shares_ in ({}, shares):
        config = dataclasses.replace(config, weight_decay=0.0, clip_norm=1e9)
        optimizer = make_optimizer(config, shares_)
        state = optimizer.init(params)
        _, state = optimizer.update(gradients, state, params)  # the first step of a warm-up is none
        updates, _ = optimizer.update(gradients, state, params)
        steps.append({dotted(path): value for path, value in jax.tree_util.tree_leaves_with_path(updates)})
    for path, share in shares.items():
        np.testing.assert_allclose(steps[1][path], share * steps[0][path], rtol=1e-6)
        assert (np.abs(steps[0][path]) > 0).all()


def test_the_head_is_what_depends_on_the_classes():
    assert fine_tuning.head_of("cnn_2d", {"image_size": 32}) == {"head.kernel", "head.bias"}
    assert fine_tuning.head_of("i3d", {}) == {"logits.kernel", "logits.bias"}


def test_it_stops_when_it_gets_no_better_and_the_best_is_published(folder, cards, tmp_path):
    config = dataclasses.replace(
        fine_tuning.fine_tuning("tiny", f"folder:{folder}", "colours", None),
        steps=200, learning_rate=0.3, warmup_steps=1, ema_decay=0.0, evaluate_every=2, patience=3,
    )  # fmt: skip
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.json").write_text(config.to_json())
    train.train(config, place)
    rows = [row for row in run_log.read_metrics(place / "metrics.jsonl") if row["kind"] == "test"]
    losses = [row["loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(losses) - 1 - best == 3
    assert rows[-1]["step"] < 200
    told = tiny.card(None).__dict__ | {"labels": ("cyan", "yellow")}
    known = ("task", "description", "labels", "preprocessing", "licence", "attribution", "protocol")
    card = publish.publish(place, "two_colours", {name: told[name] for name in known}, cards)
    assert card.metrics["top1"] == round(rows[best]["top1"], 4)
    assert RunCheckpoints(place / "best").checkpointer.latest.step == rows[best]["step"]


def test_a_broken_clip_is_named_and_passed_over(folder):
    for number in range(6, 106):
        place = folder / "train" / "cyan" / f"{number}.mkv"
        place.write_bytes((folder / "train" / "cyan" / "0.mkv").read_bytes())
    (folder / "train" / "cyan" / "7.mkv").write_bytes(b"no video")
    done = run(folder, "--init", "colours", "--steps", "20")
    assert "7.mkv" in (done / "unreadable.txt").read_text()
    for number in range(8, 12):
        (folder / "train" / "cyan" / f"{number}.mkv").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 112 videos cannot be read, more than 1%: runs/.*/unreadable.txt names"):
        run(folder, "--init", "colours", "--steps", "20")
    (stopped,) = (path for path in Path("runs").iterdir() if path != done)
    noted = {Path(line.partition(" is ")[0]).name for line in (stopped / "unreadable.txt").read_text().splitlines()}
    assert len(noted) >= 2
    assert noted <= {f"{number}.mkv" for number in range(7, 12)}


@pytest.mark.slow
def test_processes_give_the_batches_that_threads_give_and_share_what_they_cannot_read(folder):
    def batches(workers: int) -> Any:
        source = open_dataset(f"folder:{folder}", "train", preprocessing=tiny.PREPROCESSING)
        source.unreadable.write_to(Path(f"unreadable_{workers}.txt"))
        return loader.training_batches(source, 3, seed=0, workers=workers)

    (folder / "train" / "cyan" / "0.mkv").write_bytes(b"no video")
    with contextlib.closing(batches(0)) as threads, contextlib.closing(batches(2)) as processes:
        for expected, found in zip(itertools.islice(threads, 9), processes, strict=False):
            np.testing.assert_equal(found, expected)
            position = processes.get_state()
        expected = next(threads)
    noted = Path("unreadable_2.txt").read_text()
    assert noted == Path("unreadable_0.txt").read_text()
    assert noted.count("\n") == 1
    with contextlib.closing(batches(2)) as processes:
        processes.set_state(position)
        np.testing.assert_equal(next(processes), expected)
        for number in range(6):
            (folder / "train" / "yellow" / f"{number}.mkv").write_bytes(b"")
        with pytest.raises(UserError, match=r"of 12 videos cannot be read, more than 1%: unreadable_2\.txt names"):
            list(itertools.islice(processes, 20))


def test_a_run_does_not_go_on_with_another_number_of_classes(folder):
    done = run(folder, "--init", "colours", "--steps", "3")
    config = json.loads((done / "config.json").read_text())
    (done / "config.json").write_text(json.dumps(config | {"steps": 6}))
    for split in ("train", "val"):
        (folder / split / "magenta").mkdir()
        (folder / split / "magenta" / "0.mkv").write_bytes((folder / split / "cyan" / "0.mkv").read_bytes())
    with pytest.raises(UserError) as told:
        train.main(["--model", "tiny", "--resume", str(done)])
    assert "['params']['layers'][1]['kernel'].value is (5, 2), not (5, 3)" in str(told.value)
    assert "has the data set as many classes as when the run was begun?" in str(told.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny", "--dataset", "folder:clips", "--init", "sounds"], "no model is called 'tiny_sounds'"),
        (["--model", "lstm", "--init", "colours"], "--init is for --model with --dataset folder:DIR"),
        (["--model", "lstm", "--data", "clips"], "data set digits does not fit this experiment"),
        (["--model", "tiny", "--dataset", "folder:clips", "--workers", "-1"], "workers is -1; it must be 0 or above"),
        (["--model", "lstm", "--dataset", "folder:clips", "--init", "tiny_colours"], "is a tiny, from which no lstm"),
        (["--model", "tiny", "--dataset", "folder:clips", "--freeze", "head"], "no part of tiny is called 'head'"),
        (["--model", "tiny", "--dataset", "folder:clips", "--sampler", "fair"], "no sampler is called 'fair'"),
        (
            ["--model", "tiny", "--dataset", "folder:clips", "--layer-decay", "0"],
            "layer_decay is 0.0; it must be above",
        ),
        (["--model", "tiny", "--dataset", "folder:clips", "--task-options", "mixpu=1"], "mean mixup or cutmix?"),
        (["--model", "tiny", "--dataset", "folder:clips", "--task-options", "mixup=x"], "mixup=x is not mixup=NUMBER"),
    ],
)
def test_mistakes(arguments, message, folder):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        train.main(arguments)
    assert not Path("runs").exists()
