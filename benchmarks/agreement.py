"""`python -m benchmarks.agreement --run DIR`: how well students say of a clip's first part what I3D says of all of it.

On the held-out clips of `real_clips`, which no training sees. The table goes to benchmarks/results/agreement.csv.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

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
FIELDS = ("model", "part", "clips", "top1", "top5", "top1 by label", "labels", "top1 where sure", "sure", "calibration")

type Logits = Callable[[np.ndarray], np.ndarray]
"""Of clips float32 `[1, T, H, W, 3]` in [-1, 1]: `[1, classes]`."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures agreement with i3d_kinetics400 on held-out clips."""

    run: tuple[Path, ...] = ()
    """Folders of training runs, each a model of the table."""
    model: tuple[str, ...] = ()
    """Published models."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.agreement")
    hub.use_compilation_cache()
    teacher = published("i3d_kinetics400")
    students = {"i3d_kinetics400": teacher, "i3d, mean of two halves": in_halves(teacher)}
    students |= {name: published(name) for name in arguments.model} | {
        run.name: _compiled(trained(run)[1]) for run in arguments.run
    }
    clips = open_dataset("real_clips", "test", num_frames=32)
    wholes, found = [], {(name, part): [] for name in students for part in PARTS}
    for index in track(range(len(clips)), description="clips"):
        x = clips[index]["video"][None].astype(np.float32) / 127.5 - 1
        wholes.append(teacher(x)[0])
        for (name, part), answers in found.items():
            answers.append(students[name](beginning(x, part))[0])
    rows = [
        {"model": name, "part": f"{part:.0%}", **figures(np.array(wholes), np.array(answers))}
        for (name, part), answers in found.items()
    ]
    header = "agreement with i3d_kinetics400 on held-out real clips of 32 frames, 8 a second"
    tables.write(tables.RESULTS / "agreement.csv", header, FIELDS, rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def beginning(x: np.ndarray, part: float) -> np.ndarray:
    """The first part of a clip, its last frame repeated where I3D would see too few."""
    x = x[:, : round(part * x.shape[1])]
    return np.concatenate([x, *[x[:, -1:]] * (_LEAST_FRAMES - x.shape[1])], axis=1)


def published(name: str) -> Logits:
    return _compiled(zoo.load(name).model)


def _compiled(model: nnx.Module) -> Logits:
    graph, weights = nnx.split(model)
    run = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x))
    return lambda x: np.asarray(run(weights, x))


def in_halves(teacher: Logits) -> Logits:
    """I3D on windows of 16 frames, its probabilities averaged: what needs no training."""

    def logits(x: np.ndarray) -> np.ndarray:
        windows = [x[:, start : start + 16] for start in range(0, x.shape[1], 16)]
        shares = [jax.nn.softmax(jnp.asarray(teacher(beginning(window, 1.0)))) for window in windows]
        return np.log(np.mean(shares, axis=0))

    return logits


def figures(wholes: np.ndarray, answers: np.ndarray) -> Mapping[str, str]:
    """The table's cells for the teacher's logits of whole clips and a student's `[clips, classes]`."""
    labels, shares = wholes.argmax(-1), _softmax(answers)
    right = answers.argmax(-1) == labels
    among = (np.argsort(-answers, axis=-1)[:, :5] == labels[:, None]).any(-1)
    sure = _softmax(wholes).max(-1) >= _SURE
    by_label = [right[labels == label].mean() for label in np.unique(labels)]
    return {
        "clips": str(len(labels)),
        "top1": f"{right.mean():.3f}",
        "top5": f"{among.mean():.3f}",
        "top1 by label": f"{np.mean(by_label):.3f}",
        "labels": str(len(by_label)),
        "top1 where sure": f"{right[sure].mean():.3f}" if sure.any() else "",
        "sure": str(sure.sum()),
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
