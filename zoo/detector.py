"""Objects in a video, and which of them is which: what `zoo.load("centernet_coco")` gives."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.data.decode import VideoReader, open_video
from zoo.data.tiles import Tiles
from zoo.errors import UserError
from zoo.models.centernet import STRIDE
from zoo.predictor import Predictor
from zoo.registry import ModelCard
from zoo.tasks.boxes import peaks, without_doubles
from zoo.tracking import Tracker

ARRAY_RATE = 25.0  # frames a second that an array of frames is taken for

# Less likely boxes can still continue a track, which is ByteTrack's idea; below this they are noise.
LEAST_SCORE = 0.1


@dataclasses.dataclass(frozen=True)
class Detections:
    """Boxes of objects, ordered by time; an object followed through a video has many.

    Attributes:
      frames: int [N], which frame, from 0 on.
      times: float64 [N], seconds.
      boxes: float32 [N, 4], left, top, right, bottom in the frame's pixels.
      scores: float32 [N], probabilities.
      classes: int [N], numbers of labels.
      tracks: int [N], the same number for the same object, from 1 on; 0 where it is not followed.
    """

    frames: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    tracks: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def together(cls, parts: "Iterable[Detections]") -> "Detections":
        """One after another; none at all is empty."""
        parts = [*parts, cls.of_frame(0, 0.0, np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0))]
        fields = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))

    @classmethod
    def of_frame(cls, frame: int, seconds: float, boxes: Any, scores: Any, classes: Any, tracks: Any) -> "Detections":
        count = len(boxes)
        return cls(
            np.full(count, frame),
            np.full(count, float(seconds)),
            np.asarray(boxes, np.float32),
            np.asarray(scores, np.float32),
            np.asarray(classes, int),
            np.asarray(tracks, int),
        )


class Detector(Predictor):
    """Finds objects in a video and follows them; compiled once, whatever the frames' size.

    A video is whatever `open_video` takes, an open `VideoReader`, or uint8 RGB [T, H, W, 3] at 25 frames a second.

    Attributes:
      preprocess: cuts frames into the squares that `model` sees. Replace it, `dataclasses.replace(..., tiles=3)`, to
        see small objects.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Tiles(**card.preprocessing)

    def detect(self, video: Any, threshold: float | None = None) -> Detections:
        """Every object of every frame. `threshold` is the score from which on a box is told, the card's without.

        Raises:
          UserError: the video cannot be read, or an array is not uint8 [T, H, W, 3] with at least one frame.
        """
        return Detections.together(found for _, _, found in self.follow(video, threshold))

    def follow(self, video: Any, threshold: float | None = None) -> Iterator[tuple[float, np.ndarray, Detections]]:
        """Yields (seconds, frame uint8 [H, W, 3], its objects) of every frame in order; holds a batch of them."""
        if isinstance(video, VideoReader):
            yield from self._follow(video.frames(), video.frame_rate, threshold)
        elif hasattr(video, "__array__"):
            frames = np.asarray(video)
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
                raise UserError(
                    f"an array of frames is uint8 [time, height, width, 3] with at least one frame, not "
                    f"{frames.dtype} {list(frames.shape)}"
                )
            timed = ((index / ARRAY_RATE, frame) for index, frame in enumerate(frames))
            yield from self._follow(timed, ARRAY_RATE, threshold)
        else:
            with open_video(video) as reader:
                yield from self.follow(reader, threshold)

    def boxes(self, frames: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Boxes, scores and classes of each frame for itself, best first, down to `LEAST_SCORE`."""
        wanted = self.preprocess
        squares = [wanted.squares(*frame.shape[:2]) for frame in frames]
        seen = np.concatenate([wanted.cut(frame, cuts) for frame, cuts in zip(frames, squares, strict=True)])
        graph, state = nnx.split(self.model)
        parts = [_run(graph, state, batch) for batch in _batches(seen, squares_a_call(state))]
        answers = [np.concatenate([np.asarray(part[which]) for part in parts])[: len(seen)] for which in range(3)]
        starts = np.cumsum([0, *map(len, squares)])
        return [
            self._joined([answer[start:end] for answer in answers], cuts, frame.shape)
            for frame, cuts, start, end in zip(frames, squares, starts[:-1], starts[1:], strict=True)
        ]

    def _joined(
        self, answers: list[np.ndarray], squares: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, scores, classes = answers
        found, useful = self.preprocess.joined(boxes, squares, *shape[:2])
        useful &= scores >= LEAST_SCORE
        boxes, scores, classes = found[useful], scores[useful], classes[useful]
        kept = without_doubles(boxes, scores, classes, self.preprocess.most_overlap)
        return boxes[kept], scores[kept], classes[kept]

    def _follow(
        self, frames: Iterable[tuple[float, np.ndarray]], frame_rate: float, threshold: float | None
    ) -> Iterator[tuple[float, np.ndarray, Detections]]:
        threshold = self.preprocess.threshold if threshold is None else threshold
        tracker = Tracker(frame_rate, threshold)
        held: list[tuple[float, np.ndarray]] = []
        number = 0
        count = 0
        for timed in frames:
            held.append(timed)
            count = count or self._frames_a_call(timed[1])
            if len(held) == count:
                yield from self._told(held, number, tracker, threshold)
                number, held = number + len(held), []
        yield from self._told(held, number, tracker, threshold)

    def _frames_a_call(self, frame: np.ndarray) -> int:
        squares = len(self.preprocess.squares(*frame.shape[:2]))
        return max(1, squares_a_call(nnx.state(self.model)) // squares)

    def _told(
        self, held: list[tuple[float, np.ndarray]], number: int, tracker: Tracker, threshold: float
    ) -> Iterator[tuple[float, np.ndarray, Detections]]:
        if not held:
            return
        for index, ((seconds, frame), found) in enumerate(zip(held, self.boxes([f for _, f in held]), strict=True)):
            boxes, scores, classes = found
            tracks = tracker.update(boxes, scores, classes)
            told = (scores >= threshold) | (tracks > 0)
            yield (
                seconds,
                frame,
                Detections.of_frame(number + index, seconds, *(a[told] for a in (boxes, scores, classes, tracks))),
            )


@functools.partial(jax.jit, static_argnames=("graph",))
def _run(graph: nnx.GraphDef, state: nnx.State, squares: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes, scores and classes of squares uint8 [B, size, size, 3]."""
    model: Any = nnx.merge(graph, state)
    precision = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)))
    return peaks(model(squares.astype(precision)), STRIDE)


def squares_a_call(state: nnx.State) -> int:
    """What a CPU and what an accelerator is kept busy by; all calls have this many."""
    device = next(iter(jax.tree.leaves(state)[0].devices()))
    return 4 if device.platform == "cpu" else 32


def _batches(squares: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """uint8 [size, H, W, 3], the last one filled up with black, so that all videos share a compiled program."""
    for start in range(0, len(squares), size):
        batch = squares[start : start + size]
        yield np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
