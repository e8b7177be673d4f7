"""A picture of what a model says along a video: the likeliest labels' probabilities over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.errors import UserError

_LABELS = 6
_WIDTH = 1200  # columns: more moments than that cannot be told apart


def draw(times: Sequence[float], answers: Sequence[Sequence[tuple[str, float]]], title: str, path: Path) -> Path:
    """Draws the labels whose probability rises highest, one band each, the brighter the likelier; returns the path.

    Args:
      times: seconds.
      answers: for each time (label, probability) pairs.

    Raises:
      UserError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), _WIDTH)).astype(int))
    times, shares = [times[index] for index in keep], [dict(answers[index]) for index in keep]
    peaks: dict[str, float] = {}
    for answer in shares:
        for label, probability in answer.items():
            peaks[label] = max(probability, peaks.get(label, 0.0))
    labels = sorted(peaks, key=lambda label: -peaks[label])[:_LABELS]
    table = np.array([[answer.get(label, 0.0) for answer in shares] for label in labels])

    figure = Figure(figsize=(10, 1.2 + 0.45 * len(labels)), layout="constrained")
    axes = figure.subplots()
    edges = np.append(times, times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1) or 1)
    mesh = axes.pcolormesh(edges, np.arange(len(labels) + 1), table, vmin=0, vmax=1, cmap="viridis")
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(title, loc="left")
    figure.colorbar(mesh, ax=axes, label="probability")
    partial = path.with_name(f".{path.name}.partial.png")
    try:
        figure.savefig(partial, dpi=100)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path
