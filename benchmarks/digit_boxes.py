"""`python -m benchmarks.digit_boxes --run runs/...`: how good the boxes of a run of centernet_digits are.

Average precision by COCO's protocol on frames of held-out digits, one of each clip, none of which a training saw.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import command_line, publish
from zoo.data import open_dataset
from zoo.metrics.detection import Image, average_precision
from zoo.models.centernet import STRIDE
from zoo.tasks.boxes import peaks


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures a detector of digits."""

    run: Path
    """The run's folder."""
    frames: int = 512
    """So many held-out frames."""
    batch: int = 32
    """Frames a call."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.digit_boxes")
    config, model = publish.trained(arguments.run)
    data = open_dataset(config.dataset, "test", **config.dataset_options)
    items = [data[index * data.num_frames] for index in range(arguments.frames)]
    figures = average_precision(found(model, items, arguments.batch))
    print(f"{arguments.frames} frames: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def found(model: nnx.Module, items: list[dict[str, np.ndarray]], batch: int) -> list[Image]:
    """What a detector finds in items of a data set with boxes; their number is a multiple of `batch`."""

    @nnx.jit
    def boxes_of(model, images):
        return peaks(model(images.astype(jnp.float32)), STRIDE)

    images = []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        answers = jax.device_get(boxes_of(model, np.stack([item["image"] for item in part])))
        for item, boxes, scores, classes in zip(part, *answers, strict=True):
            is_box, is_peak = item["box_classes"] >= 0, scores > 0
            truth = item["boxes"][is_box], item["box_classes"][is_box]
            images.append(Image(*truth, boxes[is_peak], classes[is_peak], scores[is_peak]))
    return images


if __name__ == "__main__":
    command_line.run("python -m benchmarks.digit_boxes", main)
