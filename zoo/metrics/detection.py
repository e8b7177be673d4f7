"""Average precision of boxes by COCO's protocol, as pycocotools counts it.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv:1405.0312, and its authors' cocoeval.py: at ten
overlaps from 0.5 to 0.95, precision at 101 recalls, the 100 best boxes an image and class; a crowd may be found often
or not at all, and so may what is outside of a range of areas.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
AREAS = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}


@dataclasses.dataclass(frozen=True)
class Image:
    """What is in an image and what was found in it.

    Attributes:
      boxes: float [N, 4], left, top, right, bottom of the objects.
      classes: int [N].
      found: float [M, 4], the boxes that were found.
      found_classes: int [M].
      scores: float [M].
      crowds: bool [N], which boxes are crowds; none without.
      areas: float [N], of the objects; those of their boxes without.
    """

    boxes: np.ndarray
    classes: np.ndarray
    found: np.ndarray
    found_classes: np.ndarray
    scores: np.ndarray
    crowds: np.ndarray | None = None
    areas: np.ndarray | None = None


def average_precision(images: Iterable[Image]) -> dict[str, float]:
    """`AP`, `AP50`, `AP75`, `AP_small`, `AP_medium` and `AP_large`, each from 0 to 1; NaN where no object is of a size.

    Averages over the classes that have objects.
    """
    images = list(images)
    kinds = sorted({int(number) for image in images for number in image.classes})
    figures = {}
    for name, limits in AREAS.items():
        table = np.array([_precisions(images, kind, limits) for kind in kinds]).reshape(-1, len(OVERLAPS))
        table = table[~np.isnan(table).any(axis=1)]
        figures[f"AP{name}"] = float(table.mean()) if len(table) else math.nan
        if not name:
            for percent in (50, 75):
                at = int(np.argmin(np.abs(OVERLAPS - percent / 100)))
                figures[f"AP{percent}"] = float(table[:, at].mean()) if len(table) else math.nan
    return figures


def _precisions(images: Sequence[Image], kind: int, limits: tuple[float, float]) -> np.ndarray:
    """The average precision of a class at each overlap, float64 [10]; NaN where it has no objects."""
    matched = [_matched(image, kind, limits) for image in images]
    objects = sum(count for _, _, _, count in matched)
    if not objects:
        return np.full(len(OVERLAPS), np.nan)
    scores = np.concatenate([each for each, _, _, _ in matched])
    order = np.argsort(-scores, kind="mergesort")
    right = np.concatenate([each for _, each, _, _ in matched], axis=1)[:, order]
    ignored = np.concatenate([each for _, _, each, _ in matched], axis=1)[:, order]
    true = np.cumsum(right & ~ignored, axis=1)
    false = np.cumsum(~right & ~ignored, axis=1)
    found = []
    for true_so_far, false_so_far in zip(true, false, strict=True):
        precision = true_so_far / (true_so_far + false_so_far + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(true_so_far / objects, RECALLS, side="left")
        found.append(np.append(precision, 0)[np.minimum(at, len(precision))].mean())
    return np.array(found)


def _matched(image: Image, kind: int, limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The found boxes' scores [M], which are right and which ignored at each overlap [10, M], and how many objects."""
    ours = np.flatnonzero(image.found_classes == kind)
    ours = ours[np.argsort(-image.scores[ours], kind="mergesort")][:MOST]
    theirs = np.flatnonzero(image.classes == kind)
    boxes = image.boxes[theirs].astype(np.float64)
    crowds = np.zeros(len(theirs), bool) if image.crowds is None else image.crowds[theirs]
    areas = _areas(boxes) if image.areas is None else image.areas[theirs]
    left_out = crowds | (areas < limits[0]) | (areas > limits[1])
    order = np.argsort(left_out, kind="mergesort")  # those that count come first
    boxes, crowds, left_out = boxes[order], crowds[order], left_out[order]
    found = image.found[ours].astype(np.float64)
    overlaps = _overlaps(found, boxes, crowds)

    shape = (len(OVERLAPS), len(ours))
    right, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    for level, least in enumerate(OVERLAPS):
        taken = np.zeros(len(theirs), bool)
        for index in range(len(ours)):
            best, most = -1, min(least, 1 - 1e-10)
            for candidate in range(len(theirs)):
                if taken[candidate] and not crowds[candidate]:
                    continue
                if best >= 0 and not left_out[best] and left_out[candidate]:
                    break  # one that counts is better than any that does not
                if overlaps[index, candidate] >= most:
                    best, most = candidate, overlaps[index, candidate]
            if best >= 0:
                taken[best] = right[level, index] = True
                ignored[level, index] = left_out[best]
    found_areas = _areas(found)
    ignored |= ~right & ((found_areas < limits[0]) | (found_areas > limits[1]))
    return image.scores[ours], right, ignored, int((~left_out).sum())


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlaps(found: np.ndarray, boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Intersection over union, of a crowd over the found box alone: float64 [M, N]."""
    low = np.maximum(found[:, None, :2], boxes[None, :, :2])
    high = np.minimum(found[:, None, 2:], boxes[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    ours, theirs = _areas(found)[:, None], _areas(boxes)[None]
    either = np.where(crowds[None], ours, ours + theirs - both)
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
