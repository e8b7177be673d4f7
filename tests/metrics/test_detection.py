"""Average precision against pycocotools' own figures (golden/make_coco_map.py) and by hand."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from zoo.metrics.detection import Image, average_precision

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_coco_map.py"))
NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


@pytest.mark.parametrize("case", sorted(SCRIPT["CASES"]))
def test_equals_pycocotools(case: str):
    images = [Image(**image) for image in SCRIPT["images"](SCRIPT["CASES"][case])]
    figures = average_precision(images)
    with np.load(GOLDEN / "coco_map.npz") as golden:
        np.testing.assert_allclose([figures[name] for name in NAMES], golden[case], atol=1e-9)


def image(found, scores, found_classes=None) -> Image:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]])
    found = np.asarray(found, float).reshape(-1, 4)
    classes = np.zeros(len(found), int) if found_classes is None else np.asarray(found_classes)
    return Image(boxes, np.zeros(2, int), found, classes, np.asarray(scores, float))


def test_by_hand():
    both = [[0, 0, 10, 10], [20, 0, 30, 10]]
    assert average_precision([image(both, [0.5, 0.4])])["AP"] == pytest.approx(1)
    assert average_precision([image([], [])])["AP"] == 0
    assert average_precision([image(both[:1], [0.5])])["AP50"] == pytest.approx(51 / 101)  # recall 0.5 and less
    # A wrong box above both: precision 2/3 at every recall.
    assert average_precision([image([[50, 50, 60, 60], *both], [0.9, 0.5, 0.4])])["AP50"] == pytest.approx(2 / 3)
    # Overlaps of 0.82 with both are right at seven of ten.
    assert average_precision([image([[0, 0, 10, 8.2], [20, 0, 30, 8.2]], [0.9, 0.8])])["AP"] == pytest.approx(0.7)
    assert average_precision([image(both, [0.5, 0.4], [1, 1])])["AP50"] == 0
    assert math.isnan(average_precision([image(both, [0.5, 0.4])])["AP_large"])
