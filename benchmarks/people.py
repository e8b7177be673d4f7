"""`python -m benchmarks.people --video vtest.avi`: how many people a detector finds of those that an eye counted.

In people.csv, beside this file, stands every person that was seen in 20 frames spread evenly over Debian opencv-doc's
vtest.avi (768x576, 795 frames, 10 a second), as a point near the middle of what is to be seen of the person. Where
`counts` is "no", so little is to be seen (a foot at the border, a head above a car) that neither finding nor missing it
counts. The frames were looked at before any box was drawn, enlarged twice.

Each frame is looked at for itself, nothing is followed. A box is right if a person's point lies within the middle 70%
of its width and height; each box serves one person and each person one box. The table goes to
benchmarks/results/vtest-people.csv and the frames with what was found to vtest-people.jpg beside it.
"""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import tables
from zoo import command_line
from zoo.errors import UserError

FIELDS = ("frame", "people", "boxes", "right", "missed", "wrong")
MARKS = Path(__file__).with_name("people.csv")
_MIDDLE = 0.7  # of a box's sides
_COLUMNS, _SHRINK = 4, 2  # of the picture


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how many people a detector finds."""

    video: Path
    """vtest.avi of Debian's opencv-doc."""
    model: str = "centernet_coco"
    """A published model for detection that knows the label person."""
    tiles: int | None = None
    """As `zoo detect` takes them."""
    threshold: float | None = None
    """As `zoo detect` takes it."""
    write: bool = False
    """Replace the published table and picture."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.people")
    import zoo
    from zoo.data.decode import open_video

    predictor = zoo.load(arguments.model)
    if "person" not in predictor.labels:
        raise UserError(f"{arguments.model} knows no person")
    if arguments.tiles is not None:
        predictor.preprocess = dataclasses.replace(predictor.preprocess, tiles=arguments.tiles)
    threshold = predictor.preprocess.threshold if arguments.threshold is None else arguments.threshold
    people = marks()
    with open_video(arguments.video) as reader:
        moments = (np.array(list(people)) + 0.5) / reader.frame_rate
        frames = reader.frames_at(moments)
    rows, drawn = [], []
    for number, frame in zip(people, frames, strict=True):
        ((boxes, scores, classes),) = predictor.boxes([frame])
        boxes = boxes[(classes == predictor.labels.index("person")) & (scores >= threshold)]
        points, counts = people[number]
        row, pairs = judged(boxes, points, counts)
        rows.append({"frame": number} | row)
        drawn.append(_drawn(frame, boxes, points, counts, pairs))
    total = {name: sum(row[name] for row in rows) for name in FIELDS[1:]}
    recall, precision = total["right"] / total["people"], total["right"] / max(1, total["right"] + total["wrong"])
    said = f"recall {recall:.3f}, precision {precision:.3f}, threshold {threshold}, {predictor.preprocess.tiles} tiles"
    print(f"{arguments.model}: {said}; {total}")
    if arguments.write:
        file = tables.RESULTS / "vtest-people.csv"
        tables.write(file, f"{arguments.model} on vtest.avi: {said}", FIELDS, [*rows, {"frame": "all"} | total])
        _sheet(drawn).save(file.with_suffix(".jpg"), quality=80)


def marks() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By the number of a frame: the people's points int [N, 2], and which of them count, bool [N]."""
    found: dict[int, list[Mapping[str, str]]] = {}
    for row in csv.DictReader(MARKS.read_text(encoding="utf-8").splitlines()):
        found.setdefault(int(row["frame"]), []).append(row)
    return {
        frame: (
            np.array([[int(row["x"]), int(row["y"])] for row in rows]),
            np.array([row["counts"] == "yes" for row in rows]),
        )
        for frame, rows in found.items()
    }


def judged(boxes: np.ndarray, points: np.ndarray, counts: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
    """A row of the table for boxes float [N, 4], and the pairs (box, point) that belong together, int [M, 2]."""
    from scipy.optimize import linear_sum_assignment

    middles, sides = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, boxes[:, None, 2:] - boxes[:, None, :2]
    away = np.abs(points[None] - middles) / np.maximum(sides, 1e-9)
    within = (away <= _MIDDLE / 2).all(axis=-1)
    # As many pairs as can be, and among those the ones whose points are nearest to the middles.
    chosen = np.stack(linear_sum_assignment(np.where(within, away.sum(axis=-1) - 10, 0)), axis=1)
    pairs = chosen[within[tuple(chosen.T)]]
    right = int(counts[pairs[:, 1]].sum())
    row = {"people": int(counts.sum()), "boxes": len(boxes), "right": right}
    return row | {"missed": row["people"] - right, "wrong": len(boxes) - len(pairs)}, pairs


def _drawn(
    frame: np.ndarray, boxes: np.ndarray, points: np.ndarray, counts: np.ndarray, pairs: np.ndarray
) -> Image.Image:
    """A frame with right boxes green, wrong ones red, missed people circled in yellow or grey (no count)."""
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    for index, box in enumerate(boxes.tolist()):
        pen.rectangle(tuple(box), outline=(0, 255, 0) if index in pairs[:, 0] else (255, 0, 0), width=3)
    for index, (x, y) in enumerate(points.tolist()):
        if index not in pairs[:, 1]:
            colour = (255, 255, 0) if counts[index] else (170, 170, 170)
            pen.ellipse((x - 20, y - 20, x + 20, y + 20), outline=colour, width=4)
    return image.resize((image.width // _SHRINK, image.height // _SHRINK), Image.Resampling.BOX)


def _sheet(images: list[Image.Image]) -> Image.Image:
    width, height = images[0].size
    sheet = Image.new("RGB", (width * _COLUMNS, height * -(-len(images) // _COLUMNS)))
    for index, image in enumerate(images):
        sheet.paste(image, (index % _COLUMNS * width, index // _COLUMNS * height))
    return sheet


if __name__ == "__main__":
    command_line.run("python -m benchmarks.people", main)
