"""Moving digits: handwritten digits that move, bounce and overlap, drawn on the fly.

The protocol of Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681) on the handwritten digits that scikit-learn
ships, so nothing has to be downloaded.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from zoo.data.digits import NUM_CLASSES, handwritten_digits


def bounce(start: np.ndarray, velocity: np.ndarray, num_frames: int, room: float) -> np.ndarray:
    """Positions `[num_frames, ...]` of points that move at constant speed and are reflected at 0 and `room`.

    A reflected path is a straight one folded: the triangle wave of period 2 * room.
    """
    time = np.arange(num_frames).reshape(-1, *(1,) * np.ndim(start))
    return room - np.abs((start + velocity * time) % (2 * room) - room)


@dataclasses.dataclass(frozen=True)
class MovingDigits:
    """Random-access source of clips: item i depends on (seed, split, i) alone.

    An item is `{"video": uint8 [num_frames, size, size, 1], "classes": float32 [10]}`, where `classes` counts how often
    each digit occurs. One to `max_digits` digits, fewer being likelier, start anywhere and move by 1/64 to 3/64 of the
    frame a step in any direction. A digit's box is half the frame; the drawing fills about three quarters of the box.
    """

    num_classes: ClassVar[int] = NUM_CLASSES

    split: str
    num_frames: int = 8
    size: int = 32
    max_digits: int = 3
    seed: int = 0
    length: int = 2**31 - 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        box = self.size // 2
        images, labels = handwritten_digits(self.split, box)
        rng = np.random.default_rng([self.seed, self.split == "test", index])
        chosen = rng.integers(len(images), size=rng.integers(1, self.max_digits + 1, 2).min())
        room = self.size - box
        start = rng.uniform(0, 2 * room, (len(chosen), 2))
        angle = rng.uniform(0, 2 * np.pi, len(chosen))
        speed = rng.uniform(1, 3, len(chosen)) * (self.size / 64)
        velocity = (speed * np.stack([np.sin(angle), np.cos(angle)])).T
        corners = np.round(bounce(start, velocity, self.num_frames, room)).astype(int)

        video = np.zeros((self.num_frames, self.size, self.size, 1), np.uint8)
        for digit, path in zip(chosen, corners.swapaxes(0, 1), strict=True):
            for frame, (y, x) in zip(video, path, strict=True):
                place = frame[y : y + box, x : x + box, 0]
                np.maximum(place, images[digit], out=place)
        counts = np.bincount(labels[chosen], minlength=NUM_CLASSES)
        return {"video": video, "classes": counts.astype(np.float32)}
