"""Moving digits of which some are common and some are rare: a data set to compare remedies for imbalance on."""

import numpy as np

from zoo.data.digits import NUM_CLASSES, handwritten_digits
from zoo.data.moving_digits import bounce
from zoo.errors import UserError

_HELD_OUT_A_CLASS = 60


class LongTailedDigits:
    """Random-access source of `{"video": uint8 [num_frames, size, size, 3], "label": int32}`: one digit that moves.

    In the split "train" the most frequent digit, 0, has `largest` clips and the rarest, 9, `largest / imbalance`, those
    between falling off exponentially (Cao et al. 2019, arXiv:1906.07413). In "test" each has 60. A class draws its
    handwriting from as many images as it has clips, if there are so many: a rare class is also little known.

    Attributes:
      labels: int32 [N].
      counts: clips of each digit.
    """

    num_classes = NUM_CLASSES

    def __init__(
        self,
        split: str,
        num_frames: int = 4,
        size: int = 32,
        largest: int = 500,
        imbalance: float = 100.0,
        seed: int = 0,
    ):
        if split not in ("train", "test"):
            raise UserError(f"long_tailed_digits has no split {split!r}; it has train, test")
        shares = imbalance ** (-np.arange(NUM_CLASSES) / (NUM_CLASSES - 1))
        train = np.maximum(1, np.round(largest * shares)).astype(int)
        self.counts = (train if split == "train" else np.full(NUM_CLASSES, _HELD_OUT_A_CLASS)).tolist()
        self.labels = np.repeat(np.arange(NUM_CLASSES), self.counts).astype(np.int32)
        self._within = np.concatenate([np.arange(count) for count in self.counts])
        self.split, self.num_frames, self.size, self.seed = split, num_frames, size, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        label, within = self.labels[index], self._within[index]
        box, room = self.size // 2, self.size - self.size // 2
        images, labels = handwritten_digits(self.split, box)
        own = images[labels == label]
        rng = np.random.default_rng([self.seed, self.split == "test", int(label), int(within)])
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3) * self.size / 64
        velocity = speed * np.array([np.sin(angle), np.cos(angle)])
        corners = np.round(bounce(rng.uniform(0, 2 * room, 2), velocity, self.num_frames, room)).astype(int)
        video = np.zeros((self.num_frames, self.size, self.size, 3), np.uint8)
        for frame, (y, x) in zip(video, corners, strict=True):
            frame[y : y + box, x : x + box] = own[within % len(own), :, :, None]
        return {"video": video, "label": np.asarray(label, np.int32)}
