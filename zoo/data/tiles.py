"""From a frame to what a detector's weights expect, and boxes back to the frame's own pixels."""

import dataclasses
import math

import numpy as np
from PIL import Image

from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tiles:
    """What a card states of a detector's input: squares cut from the frame, which together show all of it.

    A frame is seen as one square, with black right of or below it where it is no square itself. With `tiles` above 1 it
    is also seen in so many squares along its long side and as many along its short one as cover it, half as large
    again as they had to be so that an object cut in two by one is whole in another: what is small in the frame is then
    larger than in the one square.

    Attributes:
      size: pixels of a side of what the network sees.
      tiles: squares along the long side.
      threshold: the score from which on a box is told.
      most_overlap: above this intersection over union the lesser of two boxes of a class is the same object.
    """

    size: int
    tiles: int
    threshold: float
    most_overlap: float

    def __post_init__(self) -> None:
        if self.tiles < 1:
            raise UserError(f"{self.tiles} tiles show nothing; give 1 or more")

    def squares(self, height: int, width: int) -> np.ndarray:
        """Left, top and side of every square in a frame's pixels: int [squares, 3]; the first shows all of it."""
        whole = max(height, width)
        found = [(0, 0, whole)]
        if self.tiles > 1:
            side = min(whole, math.ceil(1.5 * whole / (self.tiles + 0.5)))
            found += [(left, top, side) for top in _starts(height, side) for left in _starts(width, side)]
        return np.array(found)

    def cut(self, frame: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """The squares as the network sees them: uint8 [H, W, 3] to uint8 [squares, size, size, 3]."""
        image = Image.fromarray(frame)
        seen = np.zeros((len(squares), self.size, self.size, 3), np.uint8)
        for index, (left, top, side) in enumerate(squares.tolist()):
            right, bottom = min(left + side, image.width), min(top + side, image.height)
            width, height = (
                max(1, round((end - start) * self.size / side)) for start, end in ((left, right), (top, bottom))
            )
            box = (left, top, right, bottom)
            resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
            seen[index, :height, :width] = np.asarray(resized)
        return seen

    def joined(self, boxes: np.ndarray, squares: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes in the squares' pixels to the frame's, cut at its border, and which of them are of use.

        Of no use are boxes that end where a square ends within the frame: there the object goes on.

        Args:
          boxes: float [squares, N, 4].

        Returns:
          float32 [squares, N, 4]; bool [squares, N].
        """
        starts, sides = squares[:, None, [0, 1, 0, 1]], squares[:, None, 2:]
        found = boxes * sides / self.size + starts
        near = sides[..., 0] * 0.01  # of a square's end
        ends = np.minimum(starts[..., :2] + sides, [width, height])
        cut = np.any((found[..., :2] < starts[..., :2] + near[..., None]) & (starts[..., :2] > 0), axis=-1)
        cut |= np.any((found[..., 2:] > ends - near[..., None]) & (ends < [width, height]), axis=-1)
        found = np.clip(found, 0, [width, height, width, height]).astype(np.float32)
        return found, ~cut & (found[..., 2] > found[..., 0]) & (found[..., 3] > found[..., 1])


def _starts(length: int, side: int) -> list[int]:
    """Where squares of a side begin that cover a length, every two overlapping by a third or more."""
    count = 1 if length <= side else 1 + math.ceil((length - side) / (side * 2 / 3) - 1e-9)
    return np.linspace(0, max(0, length - side), count).round().astype(int).tolist()
