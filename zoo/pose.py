"""Joints of people: what `zoo.load("movenet_lightning")` gives."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from zoo.data.decode import open_video
from zoo.detector import squares_a_call
from zoo.errors import UserError
from zoo.predictor import Predictor
from zoo.registry import ModelCard
from zoo.tasks.keypoints import joints


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a card states of its input: a square around a person.

    Attributes:
      size: pixels of a side of what the network sees.
      margin: the square's side, as a multiple of the longer side of the person's box.
    """

    size: int
    margin: float

    def squares(self, boxes: np.ndarray) -> np.ndarray:
        """Left, top and side of the square around each box, whole pixels: int [N, 3] of float [N, 4]."""
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0)
        sides = np.maximum(1, np.round(self.margin * longer))
        corners = np.round((boxes[:, :2] + boxes[:, 2:] - sides) / 2)
        return np.concatenate([corners, sides], axis=1).astype(int)

    def cut(self, frame: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """The squares as the network sees them, black outside of the frame: uint8 [N, size, size, 3]."""
        image, size = Image.fromarray(frame), self.size
        seen = np.zeros((len(squares), size, size, 3), np.uint8)
        for index, (left, top, side) in enumerate(squares.tolist()):
            around = image.crop((left, top, left + side, top + side))
            seen[index] = np.asarray(around.resize((size, size), Image.Resampling.BILINEAR))
        return seen


class PoseFinder(Predictor):
    """Finds the joints of people, each in a square of its own; compiled once, whatever the frames' size.

    `labels` are the joints' names, in the order of what is found.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Surroundings(**card.preprocessing)

    def pose(self, video: Any) -> np.ndarray:
        """The joints of the person nearest to the middle of each frame: float32 [T, 17, 3].

        Args:
          video: what `open_video` takes, or uint8 RGB [T, H, W, 3].

        Returns:
          For each joint its place (x, y) in the frame's pixels, and its probability.

        Raises:
          UserError: the video cannot be read, or an array is not uint8 [T, H, W, 3].
        """
        if hasattr(video, "__array__"):
            frames = np.asarray(video)
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
                raise UserError(
                    f"an array of frames is uint8 [time, height, width, 3], not {frames.dtype} {list(frames.shape)}"
                )
            found = self._of_frames(frames)
        else:
            with open_video(video) as reader:
                found = self._of_frames(frame for _, frame in reader.frames())
        return np.concatenate([*found, np.zeros((0, len(self.labels), 3), np.float32)])

    def of_boxes(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The joints of the person in each box: float32 [N, 17, 3], (x, y, probability), in the frame's pixels.

        Args:
          frame: uint8 [H, W, 3].
          boxes: float [N, 4], left, top, right, bottom in pixels.
        """
        squares = self.preprocess.squares(np.asarray(boxes, np.float64).reshape(-1, 4))
        return self._of_squares(self.preprocess.cut(frame, squares), squares)

    def _of_frames(self, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Of a square around each whole frame, as many frames as a call takes at a time."""
        found = []
        for batch in itertools.batched(frames, squares_a_call(nnx.state(self.model))):
            squares = np.array([_around(*frame.shape[:2]) for frame in batch])
            seen = [self.preprocess.cut(frame, squares[[index]]) for index, frame in enumerate(batch)]
            found.append(self._of_squares(np.concatenate(seen), squares))
        return found

    def _of_squares(self, seen: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """The joints in pixels of the frames that squares int [N, 3] were cut from, as uint8 [N, size, size, 3]."""
        graph, state = nnx.split(self.model)
        size = squares_a_call(state)
        answers = [np.zeros((0, len(self.labels), 3), np.float32)]
        for start in range(0, len(seen), size):
            batch = seen[start : start + size]
            filled = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
            answers.append(np.asarray(_run(graph, state, filled))[: len(batch)])
        found = np.concatenate(answers)
        corners, sides = squares[:, None, :2], squares[:, None, 2:]
        places = found[..., 1::-1] * sides + corners
        return np.concatenate([places, found[..., 2:]], axis=-1).astype(np.float32)


def _around(height: int, width: int) -> tuple[int, int, int]:
    """Left, top and side of the square around a whole frame."""
    side = max(height, width)
    return (width - side) // 2, (height - side) // 2, side


@functools.partial(jax.jit, static_argnames=("graph",))
def _run(graph: nnx.GraphDef, state: nnx.State, squares: jax.Array) -> jax.Array:
    """float32 [B, 17, 3] of squares uint8 [B, size, size, 3]."""
    model: Any = nnx.merge(graph, state)
    precision = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)))
    return joints(model(squares.astype(precision)))
