"""Frames that are in memory already, read as an open video is."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

_ROUNDING = 1e-3  # of a frame: moments are sums of fractions


class StoredVideo:
    """An array of frames with the attributes and `frames_at` of `zoo.data.decode.VideoReader`.

    Attributes:
      duration: seconds.
      frame_rate: frames a second.
      height, width: in pixels.
    """

    def __init__(self, frames: np.ndarray, frame_rate: float):
        """Args:
        frames: uint8 [T, H, W, 3], at least one.
        """
        self.frames, self.frame_rate = frames, frame_rate
        self.duration = len(frames) / frame_rate
        self.height, self.width = frames.shape[1:3]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def frames_at(
        self, times: Sequence[float] | np.ndarray, each: Callable[[np.ndarray], Any] | None = None
    ) -> np.ndarray:
        """The frame shown at each time, in seconds; of each that is wanted `each`'s result, if given, once."""
        wanted = np.floor(np.asarray(times, np.float64) * self.frame_rate + _ROUNDING).astype(int)
        indices, where = np.unique(np.clip(wanted, 0, len(self.frames) - 1), return_inverse=True)
        frames = (np.ascontiguousarray(self.frames[index]) for index in indices)
        return np.stack([each(frame) if each else frame for frame in frames])[where]
