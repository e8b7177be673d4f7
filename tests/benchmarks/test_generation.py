"""The table of drawn clips, made by a generator that draws what it is told to."""

import dataclasses

import numpy as np
import pytest

from benchmarks import generation, tables
from zoo.data.moving_digits import MovingDigits
from zoo.errors import UserError

SMALL = {"num_frames": 4, "size": 16, "max_digits": 2}
CLIPS = 40


class Drawer:
    """Draws the held-out clips themselves in ten steps, and in four what was learnt from."""

    preprocess = dataclasses.make_dataclass("Drawing", ["sampler", "guidance"])("heun", 2.5)

    def draw(self, counts, *, seed, num_steps, sampler, guidance, progress=None):
        assert (seed, sampler, guidance) == (0, "heun", 2.5)
        if num_steps == 10:
            source = MovingDigits("test", **SMALL)
            return np.stack([source[index]["video"] for index in range(len(counts))])
        return next(iter(generation._training_clips()))[: len(counts)]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    config = generation.experiment.PRESETS["finer"]
    config = dataclasses.replace(config, dataset_options=SMALL, steps=32, batch_size=8)
    monkeypatch.setattr(generation.experiment, "DATA", SMALL)
    monkeypatch.setitem(generation.experiment.PRESETS, "finer", config)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(generation, "load", lambda name: Drawer())
    # One that tells how many digits there are by what is bright, and features that depend on the order of frames.
    monkeypatch.setattr(generation, "train_reader", lambda sources: lambda clips: clips.max((1, 2, 3))[:, :1] > 0)
    monkeypatch.setattr(generation, "features", lambda clips: clips[:, :, ::4, ::4].reshape(len(clips), -1) / 255.0)
    monkeypatch.setattr(generation, "agreement", lambda read, asked: float(np.mean(read)))
    generation.main(["--clips", str(CLIPS), "--steps", "10", "4"])
    generation.main(["--clips", str(CLIPS), "--steps", "10", "--fvd"])
    (file,) = tmp_path.glob("*-generation.csv")
    return tables.read(file, "steps")


@pytest.mark.filterwarnings("ignore:a Fréchet distance")
def test_real_clips_are_as_real_clips_and_copies_are_found(rows):
    real, copies = rows["10",], rows["4",]
    assert (real["model"], real["clips"], real["agreement"]) == ("video_gen_moving_digits", str(CLIPS), "1")
    assert real["jerk"] == real["jerk_real"] == copies["jerk_real"]
    assert float(real["copied"]) == pytest.approx(0.01, abs=0.02)
    assert copies["copied"] == "1"
    assert copies["fvd_ratio"] == ""
    assert real["fvd"] == real["fvd_real"]
    assert float(real["fvd_ratio"]) == 0
    assert float(real["seconds_a_clip"]) >= 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "10", "0"], "0 steps make no clip"),
        (["--clips", "0"], "0 clips tell nothing"),
        (["--sampler", "rk4"], "no sampler is called 'rk4'"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_anything_is_learnt(flags, words, monkeypatch):
    monkeypatch.setattr(generation, "train_reader", lambda sources: pytest.fail("the reader was trained first"))
    with pytest.raises(UserError, match=words):
        generation.main(flags)
