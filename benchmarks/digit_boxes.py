"""`python -m benchmarks.digit_boxes --run runs/...`: how good the boxes of a run of centernet_digits are.

Average precision by COCO's protocol on frames of held-out digits, one of each clip, none of which a training saw. With
`--write` the figures go to benchmarks/results/digit-boxes.csv, and the first frames with what was found to
digit-boxes.png beside it.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from benchmarks import tables
from zoo import command_line, drawing, publish
from zoo.data import open_dataset
from zoo.data.encode import strips, write_picture
from zoo.metrics.detection import Image, average_precision
from zoo.tasks.detection import Detection, images_of

_DRAWN, _COLUMNS, _ENLARGE = 24, 6, 3  # of the picture
_LEAST_SCORE = 0.3


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures a detector of digits."""

    run: Path
    """The run's folder."""
    frames: int = 512
    """So many held-out frames."""
    batch: int = 32
    """Frames a call."""
    write: bool = False
    """Replace the published figures and picture."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.digit_boxes")
    config, model = publish.trained(arguments.run)
    data = open_dataset(config.dataset, "test", **config.dataset_options)
    items = [data[index * data.num_frames] for index in range(arguments.frames)]
    images = found(model, items, arguments.batch)
    figures = {name: f"{value:.3f}" for name, value in average_precision(images).items()}
    print(f"{arguments.frames} frames: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    if arguments.write:
        file = tables.RESULTS / "digit-boxes.csv"
        header = f"{config.model} after {config.steps} steps on {config.dataset}, {arguments.frames} held-out frames"
        tables.write(file, header, list(figures), [figures])
        drawn = [_drawn(item["image"], image) for item, image in zip(items[:_DRAWN], images, strict=False)]
        write_picture(file.with_suffix(".png"), strips(np.stack(drawn)[:, None], _COLUMNS), enlarge=1)


def found(model: nnx.Module, items: list[dict[str, np.ndarray]], batch: int) -> list[Image]:
    """What a detector finds in items of a data set with boxes; their number is a multiple of `batch`."""

    @nnx.jit
    def answers(model, items):
        return Detection().evaluate(model, items, jax.random.key(0))["answers"]

    images = []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        images += images_of(
            jax.device_get(answers(model, {name: np.stack([i[name] for i in part]) for name in part[0]}))
        )
    return images


def _drawn(frame: np.ndarray, image: Image) -> np.ndarray:
    """A frame enlarged, with the boxes whose score is not small."""
    kept = image.scores >= _LEAST_SCORE
    digits, scores = image.found_classes[kept].tolist(), image.scores[kept].tolist()
    texts = [f"{digit} {score:.2f}" for digit, score in zip(digits, scores, strict=True)]
    return drawing.draw(frame.repeat(_ENLARGE, 0).repeat(_ENLARGE, 1), image.found[kept] * _ENLARGE, texts, digits)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.digit_boxes", main)
