"""`python -m benchmarks.prediction --models convlstm_moving_digits`: errors by horizon on Moving MNIST's protocol.

Of published models or of runs' folders, on the fixed test set of 1,000 sequences, with the baselines that no network
should be worse than. The table goes to benchmarks/results/prediction-moving-digits.csv.
"""

import dataclasses
from pathlib import Path

from flax import nnx
from rich.console import Console

from benchmarks import tables
from zoo import command_line, publish
from zoo.configs.convlstm_moving_digits import SEES
from zoo.data.moving_digits import TEST_SEQUENCES, TEST_SHA256
from zoo.metrics.frames import FIGURES
from zoo.prediction_errors import ByFrame, errors_of_baselines, errors_of_model, held_out
from zoo.predictor import load

FILE = tables.RESULTS / "prediction-moving-digits.csv"
FIELDS = ("model", "frame", *FIGURES)
_CONTEXT = _HORIZON = SEES["num_frames"]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures predictions of moving digits frame by frame."""

    models: tuple[str, ...] = ()
    """Published models, or folders of runs; none for the baselines alone."""
    sequences: int = TEST_SEQUENCES
    """How many of the test set."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.prediction")
    videos = held_out("moving_digits", arguments.sequences, SEES, channels=1)
    found = {f"baseline {name}": errors for name, errors in errors_of_baselines(videos, _CONTEXT).items()}
    for name in arguments.models:
        found[Path(name).name] = errors_of_model(_model(name), videos, _CONTEXT, name)
    table = tables.read(FILE, "model", "frame")
    for name, errors in found.items():
        for row in _rows(name, errors):
            table[name, row["frame"]] = row
    what = f"{arguments.sequences} sequences of the test set {TEST_SHA256[:12]}, 10 frames seen, 10 predicted"
    tables.write(FILE, what, FIELDS, table.values())
    for (_, frame), row in table.items():
        if frame == "mean":
            Console().print("  ".join(f"{key} {value}" for key, value in row.items()))


def _model(name: str) -> nnx.Module:
    return publish.trained(Path(name))[1] if Path(name).is_dir() else load(name).model


def _rows(name: str, errors: ByFrame) -> list[dict[str, str]]:
    """A row for each predicted frame, and their mean."""
    frames = [*map(str, range(1, _HORIZON + 1)), "mean"]
    columns = {figure: [*values, values.mean()] for figure, values in errors.items()}
    return [
        {"model": name, "frame": frame, **{figure: f"{values[place]:.4f}" for figure, values in columns.items()}}
        for place, frame in enumerate(frames)
    ]


if __name__ == "__main__":
    command_line.run("python -m benchmarks.prediction", main)
