"""Which way and how fast a handwritten digit moves: 16 classes that no single frame can tell apart."""

import dataclasses
from typing import ClassVar

import numpy as np

from zoo.data.digits import handwritten_digits

DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
SPEEDS = {"slow": 1 / 16, "fast": 1 / 8}  # of the frame's side a step
LABELS = tuple(f"{direction}, {speed}" for direction in DIRECTIONS for speed in SPEEDS)


@dataclasses.dataclass(frozen=True)
class DigitMotion:
    """Random-access source of clips: item i depends on (seed, split, i) alone.

    An item is `{"video": uint8 [num_frames, size, size, 3], "label": int32}`, the label an index into `LABELS`. The
    digit and where it starts are random. What leaves the frame on one side comes in on the other: every place is as
    likely in every frame, whatever the motion, so a single frame says nothing of it. The digits of the "test" split
    are never seen in training.
    """

    num_classes: ClassVar[int] = len(LABELS)

    split: str
    num_frames: int = 8
    size: int = 32
    seed: int = 0
    length: int = 2**31 - 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        box = self.size // 2
        images, _ = handwritten_digits(self.split, box)
        rng = np.random.default_rng([self.seed, self.split == "test", index])
        label = rng.integers(len(LABELS))
        direction, speed = divmod(int(label), len(SPEEDS))
        angle = 2 * np.pi * direction / len(DIRECTIONS)
        velocity = np.array([np.sin(angle), np.cos(angle)]) * self.size * list(SPEEDS.values())[speed]
        start = rng.uniform(0, self.size, 2)
        picture = np.zeros((self.size, self.size, 1), np.uint8)
        picture[:box, :box, 0] = images[rng.integers(len(images))]
        corners = np.round(start + velocity * np.arange(self.num_frames)[:, None]).astype(int)
        frames = np.stack([np.roll(picture, corner, axis=(0, 1)) for corner in corners])
        video = np.repeat(frames, 3, axis=-1)
        return {"video": video, "label": np.asarray(label, np.int32)}
