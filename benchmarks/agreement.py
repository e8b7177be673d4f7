"""`python -m benchmarks.agreement --model M`: how well students say of a clip's first part what I3D says of all of it.

On the held-out clips of `real_clips`, which no training sees. Of a clip's first part a student gives the answer that
its stream gives while the video goes on, I3D that of a clip which ends there. The table goes to
benchmarks/results/agreement.csv; rows of other models stay.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import track

import zoo
from benchmarks import tables
from zoo import command_line, hub
from zoo.data import open_dataset
from zoo.publish import trained

PARTS = (0.25, 0.5, 0.75, 1.0)
_SURE = 0.5  # the teacher's probability from which on it counts as sure
_LEAST_FRAMES = 9  # below, I3D's last pooling has nothing to see
_BINS = 10
FIELDS = (
    *("model", "part", "clips", "top1", "top5", "top1 by label", "top5 by label", "labels", "top1 where sure", "sure"),
    *("divergence", "calibration"),
)

type Logits = Callable[..., np.ndarray]
"""Of clips float32 `[1, T, H, W, 3]` in [-1, 1] and of whether they end there: `[1, classes]`."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures agreement with i3d_kinetics400 on held-out clips."""

    run: tuple[str, ...] = ()
    """Training runs that are no published models, each NAME=FOLDER."""
    model: tuple[str, ...] = ()
    """Published models."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.agreement")
    hub.use_compilation_cache()
    file = tables.RESULTS / "agreement.csv"
    table = tables.read(file, "model", "part")
    teacher = published("i3d_kinetics400")
    students = {"i3d_kinetics400": teacher, "i3d, mean of two halves": in_halves(teacher)}
    students = {name: student for name, student in students.items() if (name, "100%") not in table}
    students |= {name: published(name) for name in arguments.model}
    runs = dict(word.split("=", 1) for word in arguments.run)
    students |= {name: _compiled(trained(Path(run))[1]) for name, run in runs.items()}
    clips = open_dataset("real_clips", "test", num_frames=32)
    wholes, found = [], {(name, part): [] for name in students for part in PARTS}
    for index in track(range(len(clips)), description="clips"):
        x = clips[index]["video"][None].astype(np.float32) / 127.5 - 1
        wholes.append(teacher(x, ends=True)[0])
        for (name, part), answers in found.items():
            answers.append(students[name](beginning(x, part), ends=part == 1)[0])
    for (name, part), answers in found.items():
        row = {"model": name, "part": f"{part:.0%}", **figures(np.array(wholes), np.array(answers))}
        table[name, row["part"]] = row
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    header = "agreement with i3d_kinetics400 on held-out real clips of 32 frames, 8 a second"
    tables.write(file, header, FIELDS, table.values())


def beginning(x: np.ndarray, part: float) -> np.ndarray:
    """The first part of a clip, its last frame repeated where I3D would see too few."""
    x = x[:, : round(part * x.shape[1])]
    return np.concatenate([x, *[x[:, -1:]] * (_LEAST_FRAMES - x.shape[1])], axis=1)


def published(name: str) -> Logits:
    return _compiled(zoo.load(name).model)


def _compiled(model: nnx.Module) -> Logits:
    graph, weights = nnx.split(model)
    window = getattr(model, "window", 1)

    @functools.partial(jax.jit, static_argnames="goes_on")
    def run(weights: nnx.State, x: jax.Array, goes_on: bool) -> jax.Array:
        model: Any = nnx.merge(graph, weights)
        return model.along(x)[0][:, -1] if goes_on else model(x)

    def logits(x: np.ndarray, *, ends: bool) -> np.ndarray:
        # As the model itself does: the last frame fills the last window. Here it saves programs.
        filled = np.concatenate([x, *[x[:, -1:]] * (-x.shape[1] % window)], axis=1)
        return np.asarray(run(weights, filled, goes_on=not ends and hasattr(model, "along")))

    return logits


def in_halves(teacher: Logits) -> Logits:
    """I3D on windows of 16 frames, its probabilities averaged: what needs no training."""

    def logits(x: np.ndarray, *, ends: bool) -> np.ndarray:
        del ends
        windows = [x[:, start : start + 16] for start in range(0, x.shape[1], 16)]
        shares = [jax.nn.softmax(jnp.asarray(teacher(beginning(window, 1.0), ends=True))) for window in windows]
        return np.log(np.mean(shares, axis=0))

    return logits


def figures(wholes: np.ndarray, answers: np.ndarray) -> Mapping[str, str]:
    """The table's cells for the teacher's logits of whole clips and a student's `[clips, classes]`."""
    labels, shares = wholes.argmax(-1), _softmax(answers)
    right = answers.argmax(-1) == labels
    among = (np.argsort(-answers, axis=-1)[:, :5] == labels[:, None]).any(-1)
    sure = _softmax(wholes).max(-1) >= _SURE
    by_label, among_by_label = (
        [each[labels == label].mean() for label in np.unique(labels)] for each in (right, among)
    )
    log_shares = answers - np.log(np.exp(answers.astype(np.float64)).sum(-1, keepdims=True))
    told = _softmax(wholes)
    divergence = (told * (np.log(told) - log_shares)).sum(-1).mean()
    return {
        "clips": str(len(labels)),
        "top1": f"{right.mean():.3f}",
        "top5": f"{among.mean():.3f}",
        "top1 by label": f"{np.mean(by_label):.3f}",
        "top5 by label": f"{np.mean(among_by_label):.3f}",
        "labels": str(len(by_label)),
        "top1 where sure": f"{right[sure].mean():.3f}" if sure.any() else "",
        "sure": str(sure.sum()),
        "divergence": f"{divergence:.3f}",
        "calibration": f"{calibration_error(shares.max(-1), right):.3f}",
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """How far the share of right answers is from the confidence, on average over ten bins (Guo et al. 2017)."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        np.mean(bins == number) * abs(right[bins == number].mean() - confidence[bins == number].mean())
        for number in np.unique(bins)
    ]
    return math.fsum(gaps)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return powers / powers.sum(-1, keepdims=True)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.agreement", main)
