"""Frames of moving digits with a box around each: what a detector learns from without any download."""

import dataclasses
from typing import ClassVar

import numpy as np

from zoo.data.digits import NUM_CLASSES, handwritten_digits
from zoo.data.moving_digits import wander

_INK = 48  # grey from which on a pixel is the digit's
_SPEED = (1.0, 3.0)  # in 64ths of the frame a step


@dataclasses.dataclass(frozen=True)
class BoxedDigits:
    """Random-access source of frames: item i is a frame of clip i // num_frames and depends on (seed, split, i) alone.

    An item is `{"image": uint8 [size, size, 3], "boxes": float32 [max_digits, 4], "box_classes": int32 [max_digits]}`:
    left, top, right, bottom around a digit's ink in pixels; the class of a box that is not there is -1. One to
    `max_digits` digits, all numbers alike, move and bounce as in `MovingDigits`, a digit a third of the frame high.
    Digits that overlap by more than half of one of them are drawn anew: nobody could tell those apart.
    """

    num_classes: ClassVar[int] = NUM_CLASSES

    split: str
    num_frames: int = 8
    size: int = 64
    max_digits: int = 3
    seed: int = 0
    length: int = 2**31 - 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip, time = divmod(index, self.num_frames)
        side = self.size // 3
        images, labels = handwritten_digits(self.split, side)
        rng = np.random.default_rng([self.seed, self.split == "test", clip])
        while True:
            chosen = rng.integers(len(images), size=rng.integers(1, self.max_digits + 1))
            paths = wander(rng, len(chosen), self.num_frames, self.size, side, _SPEED)
            if not _hidden(paths, side):
                break
        image = np.zeros((self.size, self.size), np.uint8)
        boxes = np.zeros((self.max_digits, 4), np.float32)
        classes = np.full(self.max_digits, -1, np.int32)
        for number, (digit, (y, x)) in enumerate(zip(chosen, paths[time], strict=True)):
            place = image[y : y + side, x : x + side]
            np.maximum(place, images[digit], out=place)
            rows, columns = np.nonzero(images[digit] >= _INK)
            boxes[number] = x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1
            classes[number] = labels[digit]
        return {"image": np.repeat(image[..., None], 3, -1), "boxes": boxes, "box_classes": classes}


def _hidden(paths: np.ndarray, side: int) -> bool:
    """Whether in some frame two squares share more than half of their area; paths [T, N, 2]."""
    shared = np.maximum(side - np.abs(paths[:, :, None] - paths[:, None]), 0).prod(axis=-1)
    others = ~np.eye(paths.shape[1], dtype=bool)
    return bool((shared[:, others] > side**2 / 2).any())
