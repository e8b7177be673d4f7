"""Moving digits: handwritten digits that move, bounce and overlap, drawn on the fly.

After Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681), on the handwritten digits that scikit-learn ships, so
nothing has to be downloaded, or with `MOVING_MNIST` by the whole of its protocol, on digits like MNIST's own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from zoo.data.digit_sheet import sheet_digits
from zoo.data.digits import NUM_CLASSES, handwritten_digits
from zoo.data.fashion import fashion
from zoo.errors import UserError

MOVING_MNIST: dict[str, Any] = {
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


def rebound(
    start: np.ndarray, velocity: np.ndarray, num_frames: int, room: float, anew: Callable[[], np.ndarray]
) -> np.ndarray:
    """Positions `[num_frames, count, 2]` of points that stop at 0 and `room` and leave the wall with a new velocity.

    Args:
      start, velocity: `[count, 2]`.
      anew: gives velocities `[count, 2]`, whose parts across a wall are turned away from it.
    """
    place, path = start, []
    for _ in range(num_frames):
        path.append(place)
        ahead = place + velocity
        place = ahead.clip(0, room)
        inward = np.sign(place - ahead)  # 0 where no wall is
        drawn = anew()
        turned = np.where(inward == 0, drawn, inward * np.abs(drawn))
        velocity = np.where((inward != 0).any(axis=1, keepdims=True), turned, velocity)
    return np.stack(path)


def wander(
    rng: np.random.Generator,
    count: int,
    num_frames: int,
    size: int,
    box: int,
    speed: tuple[float, float],
    *,
    stochastic: bool = False,
) -> np.ndarray:
    """Upper left corners (y, x) of boxes that start anywhere in a frame and bounce: int `[num_frames, count, 2]`.

    Args:
      size, box: pixels of the frame's and of the boxes' sides.
      speed: least and greatest, in 64ths of the frame a step, in any direction.
      stochastic: a wall gives another speed and direction by chance, in place of reflecting.
    """
    room = size - box

    def velocity() -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi, count)
        length = rng.uniform(*speed, count) * (size / 64)
        return (length * np.stack([np.sin(angle), np.cos(angle)])).T

    start = rng.uniform(0, 2 * room, (count, 2))
    if stochastic:
        return np.round(rebound(start / 2, velocity(), num_frames, room, velocity)).astype(int)
    return np.round(bounce(start, velocity(), num_frames, room)).astype(int)


def _mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    from zoo.data.tfds import mnist  # tensorflow-datasets is slow to import, and not wanted elsewhere

    return mnist(split)


_DRAWN = {"opencv": sheet_digits, "mnist": _mnist, "fashion": fashion}


@dataclasses.dataclass(frozen=True)
class MovingDigits:
    """Random-access source of clips: item i depends on (seed, split, i) alone.

    An item is `{"video": uint8 [num_frames, size, size, 1], "classes": float32 [10]}`, where `classes` counts how often
    each digit occurs. `min_digits` to `max_digits` digits start anywhere and move in any direction.

    Args:
      speed: least and greatest, in 64ths of the frame a step.
      digits: "uci", of scikit-learn, in a box of half the frame of which the drawing fills about three quarters;
        "opencv", the 5,000 of `digit_sheet`, in MNIST's box of 28x28 pixels; "mnist", MNIST's own by
        tensorflow-datasets; or "fashion", clothes in place of digits.
      stochastic: digits leave a wall in a direction and at a speed by chance; without, walls reflect.
      fewer_likelier: a clip has the lesser of two drawn numbers of digits; without, all numbers are as likely.
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
    stochastic: bool = False
    fewer_likelier: bool = True

    def __post_init__(self) -> None:
        if self.digits not in ("uci", *_DRAWN):
            raise UserError(f"moving_digits has no digits {self.digits!r}; it has {', '.join(('uci', *_DRAWN))}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if self.digits == "uci":
            images, labels = handwritten_digits(self.split, self.size // 2)
        else:
            images, labels = _DRAWN[self.digits](self.split)
        box = images.shape[-1]
        rng = np.random.default_rng([self.seed, self.split == "test", index])
        numbers = rng.integers(self.min_digits, self.max_digits + 1, 2 if self.fewer_likelier else 1)
        chosen = rng.integers(len(images), size=numbers.min())
        corners = wander(rng, len(chosen), self.num_frames, self.size, box, self.speed, stochastic=self.stochastic)

        video = np.zeros((self.num_frames, self.size, self.size, 1), np.uint8)
        for digit, path in zip(chosen, corners.swapaxes(0, 1), strict=True):
            for frame, (y, x) in zip(video, path, strict=True):
                place = frame[y : y + box, x : x + box, 0]
                np.maximum(place, images[digit], out=place)
        counts = np.bincount(labels[chosen], minlength=NUM_CLASSES)
        return {"video": video, "classes": counts.astype(np.float32)}


def moving_fashion(split: str, num_frames: int = 20) -> MovingDigits:
    """Moving MNIST's protocol with clothes in place of digits."""
    return MovingDigits(split, **MOVING_MNIST | {"digits": "fashion", "num_frames": num_frames})


def stochastic_moving_digits(split: str, num_frames: int = 20) -> MovingDigits:
    """Two digits whose way after a wall nobody can know (SM-MNIST, Denton and Fergus 2018, arXiv:1802.07687)."""
    told = {"speed": (1.0, 4.0), "stochastic": True, "num_frames": num_frames}
    return MovingDigits(split, **MOVING_MNIST | told)
