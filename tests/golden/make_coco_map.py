"""COCO's own average precision of made-up boxes: it knows nothing of the zoo.

    python tests/golden/make_coco_map.py

Runs with pycocotools 2.0.11 in an environment of its own and writes coco_map.npz beside this script: the six figures
`AP AP50 AP75 AP_small AP_medium AP_large` of each of `CASES`. The tests take `images` from here; it needs NumPy alone.
"""

import contextlib
import io
from pathlib import Path

import numpy as np

CASES = {"plain": 0.0, "crowds": 0.3}
"""What share of the objects are crowds."""


def images(crowd_share):
    """Dicts of boxes [N, 4], classes, crowds, found [M, 4], found_classes and scores: objects and what is near."""
    draw = np.random.RandomState(1405_0312)
    made = []
    for _ in range(12):
        count = draw.randint(0, 9)
        corners, sides = draw.uniform(0, 400, (count, 2)), np.exp(draw.uniform(2, 5.5, (count, 2)))
        boxes, classes = np.concatenate([corners, corners + sides], 1).round(1), draw.randint(0, 4, count)
        near = np.repeat(boxes, 2, 0) + draw.normal(size=(2 * count, 4)) * np.tile(np.repeat(sides, 2, 0), 2) * 0.08
        lone = draw.uniform(0, 300, (4, 2))
        found = np.concatenate([near, np.concatenate([lone, lone + draw.uniform(5, 90, (4, 2))], 1)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        of = np.concatenate([np.where(draw.rand(2 * count) < 0.9, np.repeat(classes, 2), 0), draw.randint(0, 4, 4)])
        made.append(
            {
                "boxes": boxes,
                "classes": classes,
                "crowds": draw.rand(count) < crowd_share,
                "found": found.round(2),
                "found_classes": of.astype(int),
                "scores": draw.rand(len(found)).round(1),  # many are the same
            }
        )
    return made


def main():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = {}
    for case, share in CASES.items():
        annotations, found = [], []
        for number, image in enumerate(images(share), 1):
            for box, kind, crowd in zip(image["boxes"], image["classes"], image["crowds"], strict=True):
                corner, sides = box[:2], box[2:] - box[:2]
                place = {"bbox": [*corner.tolist(), *sides.tolist()], "area": float(sides.prod())}
                of = {"id": len(annotations) + 1, "image_id": number, "category_id": int(kind), "iscrowd": int(crowd)}
                annotations.append(place | of)
            for box, kind, score in zip(image["found"], image["found_classes"], image["scores"], strict=True):
                place = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
                found.append({"image_id": number, "category_id": int(kind), "bbox": place, "score": float(score)})
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": [{"id": number} for number in range(1, 13)],
                "annotations": annotations,
                "categories": [{"id": kind} for kind in range(4)],
            }
            truth.createIndex()
            judge = COCOeval(truth, truth.loadRes(found), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        results[case] = judge.stats[:6]
        print(case, judge.stats[:6].round(4))
    np.savez_compressed(Path(__file__).with_name("coco_map.npz"), **results)


if __name__ == "__main__":
    main()
