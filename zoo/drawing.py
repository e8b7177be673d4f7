"""Boxes, labels, track numbers and skeletons, drawn on frames."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.models.movenet import JOINTS

_BONES = (
    ("left shoulder", "right shoulder"),
    ("left hip", "right hip"),
    ("nose", "left eye"),
    ("nose", "right eye"),
    ("left eye", "left ear"),
    ("right eye", "right ear"),
    *(
        (f"{side} {upper}", f"{side} {lower}")
        for side in ("left", "right")
        for upper, lower in (
            ("shoulder", "elbow"),
            ("elbow", "wrist"),
            ("shoulder", "hip"),
            ("hip", "knee"),
            ("knee", "ankle"),
        )
    ),
)
BONES = tuple((JOINTS.index(start), JOINTS.index(end)) for start, end in _BONES)

LEAST_JOINT_SCORE = 0.2  # joints below it are guesses, and stay undrawn
_GOLDEN = 0.618034  # steps of hue by the golden ratio keep neighbouring numbers apart


def colour_of(number: int) -> tuple[int, int, int]:
    """A bright colour that belongs to a number."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    frame: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[str],
    numbers: Sequence[int],
    joints: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of a frame uint8 [H, W, 3] with what was found.

    Args:
      boxes: float [N, 4], left, top, right, bottom in pixels.
      texts: written above each box, or in it where there is no room, within the frame.
      numbers: tell each box's colour.
      joints: float [N, 17, 3], (x, y, score) in pixels, NaN where a box has none.
    """
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    width = max(1, round(min(frame.shape[:2]) / 300))
    font = ImageFont.load_default(size=max(10, min(frame.shape[:2]) // 40))
    for index, (box, text, number) in enumerate(zip(boxes, texts, numbers, strict=True)):
        colour = colour_of(number)
        left, top, right, bottom = (float(side) for side in box)
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=width)
        if joints is not None:
            _skeleton(pen, joints[index], colour, width)
        _, _, across, down = pen.textbbox((0, 0), text, font=font)
        start = max(0, min(left, image.width - across - 4))
        above = top - down - 2 if top >= down + 2 else top
        pen.rectangle((start, above, start + across + 3, above + down + 2), fill=colour)
        pen.text((start + 2, above), text, fill=(0, 0, 0), font=font)
    return np.asarray(image)


def _skeleton(pen: ImageDraw.ImageDraw, joints: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    seen = [bool(joint[2] >= LEAST_JOINT_SCORE) for joint in joints]  # no number is not seen
    for start, end in BONES:
        if seen[start] and seen[end]:
            pen.line((*map(float, joints[start, :2]), *map(float, joints[end, :2])), fill=colour, width=width + 1)
    for (x, y, _), there in zip(joints.tolist(), seen, strict=True):
        if there:
            pen.ellipse((x - width, y - width, x + width, y + width), fill=(255, 255, 255))
