"""`python -m benchmarks.prediction --models convlstm_moving_digits`: errors by horizon on Moving MNIST's protocol.

Of published models or of runs' folders, on the fixed test set of 1,000 sequences, with the baselines that no network
should be worse than. The table goes to benchmarks/results/prediction-moving-digits.csv.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from benchmarks import tables
from zoo import command_line, publish
from zoo.data.moving_digits import MOVING_MNIST, TEST_SEQUENCES, TEST_SHA256, MovingDigits
from zoo.metrics.frames import FIGURES, figures
from zoo.predictor import load
from zoo.tasks.prediction import BASELINES, Prediction, to_unit

FILE = tables.RESULTS / "prediction-moving-digits.csv"
FIELDS = ("model", "frame", *FIGURES)
_BATCH = 20
_CONTEXT = 10


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures predictions of moving digits frame by frame."""

    models: tuple[str, ...] = ()
    """Published models, or folders of runs; none for the baselines alone."""
    sequences: int = TEST_SEQUENCES
    """How many of the test set."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.prediction")
    source = MovingDigits("test", **MOVING_MNIST)
    videos = np.stack([source[index]["video"] for index in range(arguments.sequences)])
    table = tables.read(FILE, "model", "frame")
    asked: dict[str, Any] = {f"baseline {name}": guess for name, guess in BASELINES.items()}
    asked |= {Path(name).name: _model(name) for name in arguments.models}
    for name, model in asked.items():
        for frame, row in enumerate(_by_frame(name, model, videos), 1):
            table[name, str(frame)] = row
    mean = [row for (_, frame), row in table.items() if frame == "mean"]
    what = f"{arguments.sequences} sequences of the test set {TEST_SHA256[:12]}, 10 frames seen, 10 predicted"
    tables.write(FILE, what, FIELDS, table.values())
    for row in mean:
        Console().print("  ".join(f"{key} {value}" for key, value in row.items()))


def _model(name: str) -> nnx.Module:
    return publish.trained(Path(name))[1] if Path(name).is_dir() else load(name).model


def _by_frame(name: str, model: Any, videos: np.ndarray) -> list[dict[str, str]]:
    """A row for each predicted frame, and their mean."""
    task = Prediction(context=_CONTEXT)
    if isinstance(model, nnx.Module):
        graph, state = nnx.split(model)
        measure = jax.jit(lambda video: task.by_horizon(nnx.merge(graph, state), video))
    else:
        measure = jax.jit(lambda video: _of_baseline(model, video))
    parts = [measure(part) for part in track(np.split(videos, len(videos) // _BATCH), description=name)]
    told = {figure: np.concatenate([part[figure] for part in parts]).mean(axis=0) for figure in FIGURES}
    frames = [*map(str, range(1, videos.shape[1] - _CONTEXT + 1)), "mean"]
    columns = {figure: [*values, values.mean()] for figure, values in told.items()}
    return [
        {"model": name, "frame": frame, **{figure: f"{values[place]:.4f}" for figure, values in columns.items()}}
        for place, frame in enumerate(frames)
    ]


def _of_baseline(guess: Any, video: jax.Array) -> dict[str, jax.Array]:
    frames = to_unit(video)
    context, truth = frames[:, :_CONTEXT], frames[:, _CONTEXT:]
    return figures(guess(context, truth.shape[1]), truth)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.prediction", main)
