"""Moving digits: handwritten digits that move, bounce and overlap, drawn on the fly.

After Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681), on the handwritten digits that scikit-learn ships, so
nothing has to be downloaded, or with `MOVING_MNIST` by the whole of its protocol, on digits like MNIST's own.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from zoo.data.digit_sheet import sheet_digits
from zoo.data.digits import NUM_CLASSES, handwritten_digits
from zoo.data.fashion import fashion
from zoo.errors import UserError

MOVING_MNIST = {
    "num_frames": 20,
    "size": 64,
    "min_digits": 2,
    "max_digits": 2,
    "speed": (3.6, 3.6),
    "digits": "opencv",
}
"""Ten frames to see and ten to predict: two digits of 28x28 that move by a tenth of their room of 36 pixels a step.

The published generator stops a digit at a wall for a moment; here it is reflected. The test set is the first
`TEST_SEQUENCES` of the split "test", whose digits are not in the split "train".
"""

TEST_SEQUENCES = 1000
TEST_SHA256 = "98747f08e670b8589540069b24094de005d9a83332806635f821b2075a7b89a4"
"""Of the test set's pixels, uint8 [1000, 20, 64, 64, 1]."""


def bounce(start: np.ndarray, velocity: np.ndarray, num_frames: int, room: float) -> np.ndarray:
    """Positions `[num_frames, ...]` of points that move at constant speed and are reflected at 0 and `room`.

    A reflected path is a straight one folded: the triangle wave of period 2 * room.
    """
    time = np.arange(num_frames).reshape(-1, *(1,) * np.ndim(start))
    return room - np.abs((start + velocity * time) % (2 * room) - room)


def wander(
    rng: np.random.Generator, count: int, num_frames: int, size: int, box: int, speed: tuple[float, float]
) -> np.ndarray:
    """Upper left corners (y, x) of boxes that start anywhere in a frame and bounce: int `[num_frames, count, 2]`.

    Args:
      size, box: pixels of the frame's and of the boxes' sides.
      speed: least and greatest, in 64ths of the frame a step, in any direction.
    """
    room = size - box
    start = rng.uniform(0, 2 * room, (count, 2))
    angle = rng.uniform(0, 2 * np.pi, count)
    length = rng.uniform(*speed, count) * (size / 64)
    velocity = (length * np.stack([np.sin(angle), np.cos(angle)])).T
    return np.round(bounce(start, velocity, num_frames, room)).astype(int)


@dataclasses.dataclass(frozen=True)
class MovingDigits:
    """Random-access source of clips: item i depends on (seed, split, i) alone.

    An item is `{"video": uint8 [num_frames, size, size, 1], "classes": float32 [10]}`, where `classes` counts how often
    each digit occurs. `min_digits` to `max_digits` digits, fewer being likelier, start anywhere and move in any
    direction.

    Args:
      speed: least and greatest, in 64ths of the frame a step.
      digits: "uci", of scikit-learn, in a box of half the frame of which the drawing fills about three quarters;
        "opencv", the 5,000 of `digit_sheet`, in MNIST's box of 28x28 pixels; or "fashion", clothes in place of digits.
    """

    num_classes: ClassVar[int] = NUM_CLASSES

    split: str
    num_frames: int = 8
    size: int = 32
    max_digits: int = 3
    seed: int = 0
    length: int = 2**31 - 1
    min_digits: int = 1
    speed: tuple[float, float] = (1.0, 3.0)
    digits: str = "uci"

    def __post_init__(self) -> None:
        if self.digits not in ("uci", "opencv", "fashion"):
            raise UserError(f"moving_digits has no digits {self.digits!r}; it has uci, opencv, fashion")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if self.digits == "uci":
            images, labels = handwritten_digits(self.split, self.size // 2)
        else:
            images, labels = {"opencv": sheet_digits, "fashion": fashion}[self.digits](self.split)
        box = images.shape[-1]
        rng = np.random.default_rng([self.seed, self.split == "test", index])
        chosen = rng.integers(len(images), size=rng.integers(self.min_digits, self.max_digits + 1, 2).min())
        corners = wander(rng, len(chosen), self.num_frames, self.size, box, self.speed)

        video = np.zeros((self.num_frames, self.size, self.size, 1), np.uint8)
        for digit, path in zip(chosen, corners.swapaxes(0, 1), strict=True):
            for frame, (y, x) in zip(video, path, strict=True):
                place = frame[y : y + box, x : x + box, 0]
                np.maximum(place, images[digit], out=place)
        counts = np.bincount(labels[chosen], minlength=NUM_CLASSES)
        return {"video": video, "classes": counts.astype(np.float32)}
