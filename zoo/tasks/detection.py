"""Detection: boxes of objects in images, learnt as CenterNet does."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zoo.metrics.detection import Image, average_precision
from zoo.models.centernet import DISTANCE_SCALE, STRIDE
from zoo.precision import as_parameters
from zoo.tasks.boxes import peaks

# Exponents of the focal loss and the weight of the distances beside it: arXiv:1904.07850, sections 3 and 5.
_HARDNESS, _NEARNESS, _DISTANCES_WEIGHT = 2, 4, 0.1

_LEAST_OVERLAP = 0.7  # a box whose middle is this spot's still overlaps the object's by so much: arXiv:1808.01244


@dataclasses.dataclass(frozen=True)
class Detection:
    """CenterNet's focal loss of middles and absolute error of distances.

    A batch is `{"image": uint8 [B, H, W, 3], "boxes": float [B, N, 4], "box_classes": int [B, N]}`: left, top, right
    and bottom in pixels; a class below 0 is no box. The figures of a step are the two parts of the loss, those of
    all held-out items together the average precisions by COCO's protocol.
    """

    needs: ClassVar[tuple[str, ...]] = ("image", "boxes", "box_classes")

    def prepared(self, train: Any, held_out: Any) -> tuple["Detection", Any, Any]:
        return self, train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        del key  # nothing here is drawn
        focal, distances = self._parts(self._answers(model, batch), batch)
        loss = focal.mean() + _DISTANCES_WEIGHT * distances.mean()
        return loss, {"focal": focal.mean(), "distances": distances.mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        answers = self._answers(model, batch)
        focal, distances = self._parts(answers, batch)
        found, scores, found_classes = peaks(answers, STRIDE)
        return {
            "loss": focal + _DISTANCES_WEIGHT * distances,
            "answers": {
                "boxes": batch["boxes"],
                "classes": batch["box_classes"],
                "found": found,
                "found_classes": found_classes,
                "scores": scores,
            },
        }

    def over_all(self, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        figures = average_precision(images_of(answers))
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []

    def _answers(self, model: Any, batch: Mapping[str, Any]) -> jax.Array:
        return model(as_parameters(model, batch["image"])).astype(jnp.float32)

    def _parts(self, answers: jax.Array, batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        boxes, classes = jnp.asarray(batch["boxes"], jnp.float32), jnp.asarray(batch["box_classes"])
        heat = heat_of(boxes, classes, answers.shape[1:3], answers.shape[-1] - 4)
        return focal_loss(answers[..., :-4], heat), distance_loss(answers[..., -4:], boxes, classes)


def images_of(answers: Mapping[str, np.ndarray]) -> list[Image]:
    """What `Detection.evaluate` answered, image by image, without what is no box."""
    images = []
    for index in range(len(answers["boxes"])):
        boxes, classes, found, found_classes, scores = (
            np.asarray(answers[name][index]) for name in ("boxes", "classes", "found", "found_classes", "scores")
        )
        is_box, is_peak = classes >= 0, scores > 0
        images.append(Image(boxes[is_box], classes[is_box], found[is_peak], found_classes[is_peak], scores[is_peak]))
    return images


def spread_of(sides: Float[Any, "*boxes 2"]) -> Float[jax.Array, "*boxes"]:
    """How far, in places, the spot of a box reaches: the standard deviation of its bell curve.

    The smallest of three distances by which two corners may be off while the boxes still overlap by 0.7 (one corner
    each way, both inwards, both outwards; arXiv:1808.01244), a third of which is the deviation.

    Args:
      sides: width and height in places.
    """
    width, height = sides[..., 0], sides[..., 1]
    total, area, share = width + height, width * height, _LEAST_OVERLAP
    # Each is the lesser root of a quadratic a r^2 - b r + c = 0.
    quadratics = (
        (1.0, total, area * (1 - share) / (1 + share)),
        (4.0, 2 * total, (1 - share) * area),
        (4 * share, -2 * share * total, (share - 1) * area),
    )
    radii = []
    for a, b, c in quadratics:
        root = jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0))
        radii.append(jnp.where(b > 0, b - root, b + root) / (2 * a))
    radius = jnp.maximum(jnp.floor(jnp.min(jnp.stack(jnp.broadcast_arrays(*radii)), axis=0)), 0)
    return (2 * radius + 1) / 6


def heat_of(
    boxes: Float[jax.Array, "batch boxes 4"], classes: Int[jax.Array, "batch boxes"], shape: Any, num_classes: int
) -> Float[jax.Array, "batch rows columns classes"]:
    """What the sigmoid of the logits shall be: a bell curve around the middle of each box, 1 at the middle itself."""
    rows, columns = shape
    middles = jnp.floor((boxes[..., :2] + boxes[..., 2:]) / (2 * STRIDE))
    spread = spread_of((boxes[..., 2:] - boxes[..., :2]) / STRIDE)[..., None, None]
    down = (jnp.arange(rows)[:, None] - middles[..., 1, None, None]) ** 2
    across = (jnp.arange(columns)[None] - middles[..., 0, None, None]) ** 2
    bells = jnp.exp(-(down + across) / (2 * spread**2))  # [B, N, rows, columns]
    of_class = jax.nn.one_hot(classes, num_classes)  # nothing where the class is below 0
    return (bells[..., None] * of_class[:, :, None, None]).max(axis=1, initial=0.0)


def focal_loss(
    logits: Float[jax.Array, "batch rows columns classes"], heat: Float[jax.Array, "batch rows columns classes"]
) -> Float[jax.Array, "batch"]:
    """Of each image, the focal loss summed over places and classes and divided by its number of middles.

    Places near a middle count less the nearer they are, and places that are right already count little
    (arXiv:1904.07850, equation 1).
    """
    share, is_middle = jax.nn.sigmoid(logits), heat == 1
    there = (1 - share) ** _HARDNESS * jax.nn.log_sigmoid(logits)
    elsewhere = (1 - heat) ** _NEARNESS * share**_HARDNESS * jax.nn.log_sigmoid(-logits)
    total = -jnp.where(is_middle, there, elsewhere).sum(axis=(1, 2, 3))
    return total / jnp.maximum(is_middle.sum(axis=(1, 2, 3)), 1)


def distance_loss(
    distances: Float[jax.Array, "batch rows columns 4"],
    boxes: Float[jax.Array, "batch boxes 4"],
    classes: Int[jax.Array, "batch boxes"],
) -> Float[jax.Array, "batch"]:
    """Of each image, the mean absolute error of the four distances at the boxes' middles, summed over the four sides.

    In units of `DISTANCE_SCALE`, which keeps it as large as CenterNet's own, whose sizes are counted in places.
    """
    _, rows, columns, _ = distances.shape
    middles = jnp.floor((boxes[..., :2] + boxes[..., 2:]) / (2 * STRIDE)).astype(jnp.int32)
    column, row = jnp.clip(middles[..., 0], 0, columns - 1), jnp.clip(middles[..., 1], 0, rows - 1)
    found = jnp.take_along_axis(distances.reshape(len(boxes), -1, 4), (row * columns + column)[..., None], axis=1)
    place = jnp.stack([column, row], axis=-1) * STRIDE
    wanted = jnp.concatenate([place - boxes[..., :2], boxes[..., 2:] - place], axis=-1)
    is_box = classes >= 0
    errors = jnp.abs(found - wanted).sum(axis=-1) / DISTANCE_SCALE
    return jnp.where(is_box, errors, 0).sum(axis=-1) / jnp.maximum(is_box.sum(axis=-1), 1)
