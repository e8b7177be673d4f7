"""Where the shots of a film begin and end: what `zoo.load("transnetv2")` gives."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from zoo.data.decode import VideoReader, open_video
from zoo.errors import UserError
from zoo.predictor import Predictor
from zoo.registry import ModelCard


@dataclasses.dataclass(frozen=True)
class Shot:
    """A stretch of a film between two transitions.

    Attributes:
      first_frame, last_frame: counted from 0, both within the shot.
      start, end: seconds; `end` is where the frame after the last one begins.
      boundary: the probability that a transition follows its last frame; None where the film ends.
    """

    first_frame: int
    last_frame: int
    start: float
    end: float
    boundary: float | None


@dataclasses.dataclass(frozen=True)
class Transitions:
    """What is known of every frame of a film.

    Attributes:
      times: float64 [T], seconds at which a frame begins.
      duration: seconds.
      middle: float32 [T], the probability that a transition has its middle here; a shot then ends with this frame.
      within: float32 [T], the probability that the frame belongs to a transition, a gradual one has many.
    """

    times: np.ndarray
    duration: float
    middle: np.ndarray
    within: np.ndarray


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a card states of its input: tiny frames, looked at in windows that overlap.

    The film is continued by copies of its first and last frame until the windows, one every `stride` frames, fill up;
    of each, the middle `stride` frames are kept.

    Attributes:
      height, width: pixels of a frame.
      window: frames that the network sees at a time.
      stride: frames from one window to the next.
      threshold: the probability from which on a frame is a transition.
      frame_rate: frames a second that an array of frames is taken for.
    """

    height: int
    width: int
    window: int
    stride: int
    threshold: float
    frame_rate: float

    @property
    def margin(self) -> int:
        """Frames at either end of a window whose answers are left out."""
        return (self.window - self.stride) // 2

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields uint8 [window, height, width, 3] for every `stride` frames, the last one for the rest."""
        held: list[np.ndarray] = []
        count = 0
        for frame in frames:
            held += [frame] * (1 if count else self.margin + 1)
            count += 1
            if len(held) == self.window:
                yield np.stack(held)
                del held[: self.stride]
        missing = self.margin + -count % self.stride
        for frame in held[-1:] * missing:
            held.append(frame)
            if len(held) == self.window:
                yield np.stack(held)
                del held[: self.stride]

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [height, width, 3]."""
        if frame.shape == (self.height, self.width, 3):
            return frame
        return np.asarray(Image.fromarray(frame).resize((self.width, self.height), Image.Resampling.BICUBIC))


class ShotDetector(Predictor):
    """Finds the shots of a film; compiled once, however long the films are.

    A film is whatever `open_video` takes, an open `VideoReader`, or uint8 RGB [T, H, W, 3].

    Attributes:
      preprocess: cuts tiny frames into windows.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Windows(**card.preprocessing)

    def __call__(self, film: Any, threshold: float | None = None) -> list[Shot]:
        """The shots in order; at least one. `threshold` is the card's (0.5) without.

        Raises:
          UserError: the film cannot be read.
        """
        return shots_of(self.transitions(film), self.preprocess.threshold if threshold is None else threshold)

    def transitions(self, film: Any, progress: Callable[[float], None] = lambda _: None) -> Transitions:
        """Both probabilities of every frame; `progress` is told the seconds that have been read.

        Raises:
          UserError: the film cannot be read, or an array is not uint8 [T, H, W, 3] with at least one frame.
        """
        if isinstance(film, VideoReader):
            size = self.preprocess.height, self.preprocess.width
            return self._of_frames(film.frames(size), lambda: film.duration, progress)
        if not hasattr(film, "__array__"):
            with open_video(film) as reader:
                return self.transitions(reader, progress)
        frames = np.asarray(film)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise UserError(
                f"an array of frames is uint8 [time, height, width, 3] with at least one frame, not {frames.dtype} "
                f"{list(frames.shape)}"
            )
        rate = self.preprocess.frame_rate
        timed = ((index / rate, self.preprocess.resize(frame)) for index, frame in enumerate(frames))
        return self._of_frames(timed, lambda: len(frames) / rate, progress)

    def _of_frames(
        self,
        frames: Iterable[tuple[float, np.ndarray]],
        duration: Callable[[], float],
        progress: Callable[[float], None],
    ) -> Transitions:
        times: list[float] = []

        def pixels() -> Iterator[np.ndarray]:
            for seconds, frame in frames:
                times.append(seconds)
                progress(seconds)
                yield frame

        graph, state = nnx.split(self.model)
        margin, stride = self.preprocess.margin, self.preprocess.stride
        answers = []
        for windows in _batches(self.preprocess(pixels()), _windows_a_call(state)):
            kept = np.asarray(_run(graph, state, windows))[:, :, margin : margin + stride]
            answers.append(kept.transpose(1, 0, 2).reshape(2, -1))
        middle, within = np.concatenate(answers, axis=1)[:, : len(times)]
        return Transitions(np.array(times), duration(), middle, within)


@functools.partial(jax.jit, static_argnames=("graph",))
def _run(graph: nnx.GraphDef, state: nnx.State, windows: jax.Array) -> jax.Array:
    """float32 [windows, 2, T]."""
    model: Any = nnx.merge(graph, state)
    return jax.nn.sigmoid(jnp.stack(model.both(windows), axis=1).astype(jnp.float32))


def _windows_a_call(state: nnx.State) -> int:
    """A CPU is busy with one window; for an accelerator that is little."""
    device = next(iter(jax.tree.leaves(state)[0].devices()))
    return 1 if device.platform == "cpu" else 16


def _batches(windows: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """uint8 [size, T, H, W, 3], the last one filled up with black, so that all films share a compiled program."""
    held: list[np.ndarray] = []
    for window in windows:
        held.append(window)
        if len(held) == size:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held + [np.zeros_like(held[0])] * (size - len(held)))


def shots_of(transitions: Transitions, threshold: float) -> list[Shot]:
    """The shots between the transitions, as TransNet V2's authors cut them.

    A shot begins with the first frame that is no transition and ends with the next frame that is one; the further
    frames of a gradual transition belong to no shot. A film that is all transition is one shot.
    """
    is_transition = transitions.middle > threshold
    before = np.append(False, is_transition[:-1])
    starts = np.flatnonzero(~is_transition & (before | (np.arange(len(before)) == 0)))
    ends = np.flatnonzero(is_transition & ~before)
    if len(is_transition) and is_transition[0]:
        ends = ends[1:]  # the film begins within a transition
    if len(starts) > len(ends):
        ends = np.append(ends, len(is_transition) - 1)
    begins = np.append(transitions.times, transitions.duration)
    found = list(zip(starts.tolist(), ends.tolist(), strict=True)) or [(0, len(is_transition) - 1)]
    return [
        Shot(
            first,
            last,
            float(begins[first]),
            float(begins[last + 1]),
            float(transitions.middle[last]) if is_transition[last] else None,
        )
        for first, last in found
    ]
