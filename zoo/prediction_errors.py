"""How far a network's predictions are off on held-out videos: what `zoo evaluate` says of one that predicts frames."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from zoo.data import open_dataset, options_of
from zoo.data.moving_digits import MOVING_MNIST
from zoo.errors import UserError
from zoo.metrics.frames import FIGURES, figures
from zoo.tasks.prediction import BASELINES, Prediction, to_unit

BATCH = 20  # videos that are looked at side by side

type ByFrame = dict[str, np.ndarray]
"""Each of `FIGURES` for each predicted frame, mean over the videos, `[T]`."""


def held_out(dataset: str, num_videos: int, sees: Mapping[str, Any], channels: int, **options: Any) -> np.ndarray:
    """The first videos of a data set's "test" split, moving digits by Moving MNIST's protocol: uint8 [N, T, H, W, C].

    Args:
      sees: a card's preprocessing; videos are twice as long as what is seen.

    Raises:
      UserError: no such data set, or one without videos of this kind.
    """
    length = 2 * sees["num_frames"]
    wanted = {"num_frames": length, "channels": channels, "preprocessing": dict(sees) | {"num_frames": length}}
    options = (MOVING_MNIST if dataset == "moving_digits" else {}) | options
    options |= {name: wanted[name] for name in options_of(dataset) if name in wanted}
    source = open_dataset(dataset, "test", **options)
    if "video" not in source[0]:
        raise UserError(f"{dataset} has {', '.join(source[0])}, and no video; take another data set")
    _, *_, there = source[0]["video"].shape
    if there != channels:
        raise UserError(f"{dataset} has frames of {there} channels, and the network sees {channels}; take other data")
    return np.stack([source[index]["video"] for index in range(min(num_videos, len(source)))])


def errors_of_model(model: nnx.Module, videos: np.ndarray, context: int, name: str) -> ByFrame:
    """Of a network as in `zoo.models.roll_out` that sees the first `context` frames of videos uint8 [N, T, H, W, C]."""
    task, (graph, state) = Prediction(context=context), nnx.split(model)
    by_horizon = jax.jit(lambda state, video: task.by_horizon(nnx.merge(graph, state), video))
    return _over_all(lambda video: by_horizon(state, video), videos, name)


def errors_of_baselines(videos: np.ndarray, context: int) -> dict[str, ByFrame]:
    """Of what no network should be worse than, by the names in `BASELINES`."""

    def measured(guess: Callable) -> Callable[[np.ndarray], Any]:
        @jax.jit
        def by_horizon(video: jax.Array) -> Any:
            frames = to_unit(video)
            seen, truth = frames[:, :context], frames[:, context:]
            return figures(guess(seen, truth.shape[1]), truth)

        return by_horizon

    return {name: _over_all(measured(guess), videos, name) for name, guess in BASELINES.items()}


def _over_all(measure: Callable[[np.ndarray], Any], videos: np.ndarray, name: str) -> ByFrame:
    """Batches of one shape compile once: the last is filled up with its last video, which does not count."""
    sums = {figure: np.zeros(()) for figure in FIGURES}
    for start in track(range(0, len(videos), BATCH), description=name, console=Console(stderr=True)):
        part = videos[start : start + BATCH]
        told = measure(np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)]))
        sums = {figure: sums[figure] + np.asarray(told[figure], np.float64)[: len(part)].sum(axis=0) for figure in sums}
    return {figure: total / len(videos) for figure, total in sums.items()}


def draw(errors: Mapping[str, ByFrame], path: Path) -> None:
    """Writes a picture of how each figure grows or falls with the frames ahead, a line for each of `errors`."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, FIGURES, strict=True):
        for label, values in errors.items():
            axes.plot(range(1, len(values[name]) + 1), values[name], label=label, marker=".")
        axes.set_title(name)
        axes.set_xlabel("frames ahead")
    figure.axes[0].legend()
    partial = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(partial, dpi=100)
    partial.replace(path)
