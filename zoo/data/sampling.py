"""Which moments of a video a model sees."""

import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np

# A container rounds the first and the last time stamp to a millisecond: 0.801 s at 25 a second are 20 frames.
_ROUNDING = 0.0011


def _samples(duration: float, frame_rate: float) -> int:
    """How many of the moments 0, 1/frame_rate, 2/frame_rate, ... lie before the end; the first always does."""
    return max(1, math.ceil((duration - _ROUNDING) * frame_rate))


def clips_to_cover(duration: float, *, num_frames: int, frame_rate: float) -> int:
    """How few windows of `num_frames` at `frame_rate` leave out nothing of `duration` seconds; at least 1."""
    return math.ceil(_samples(duration, frame_rate) / num_frames)


def clip_times(duration: float, *, num_frames: int, frame_rate: float, num_clips: int) -> np.ndarray:
    """The moments of `num_clips` windows spread evenly over a video.

    All are multiples of 1 / frame_rate, so that a video of that very rate is sampled frame by frame. Of several windows
    the first begins at 0 and the last ends with the video; a single one lies in the middle. A video shorter than a
    window is sampled once through and its last sample repeated, which a UserWarning tells.

    Args:
      duration: seconds.
      num_frames: samples in a window.
      frame_rate: samples a second.
      num_clips: windows.

    Returns:
      float64 [num_clips, num_frames], seconds in [0, duration), rising in each row.
    """
    samples = _samples(duration, frame_rate)
    spare = samples - num_frames
    if spare < 0:
        warnings.warn(
            f"the video lasts {duration:.2f} s and the model sees {num_frames / frame_rate:.2f} s: "
            f"its last frame is repeated",
            stacklevel=2,
        )
    first = np.round(np.linspace(0, max(0, spare), num_clips) if num_clips > 1 else np.array([max(0, spare) // 2]))
    return np.minimum(first[:, None] + np.arange(num_frames), samples - 1) / frame_rate


def at_rate(frames: Iterable[tuple[float, np.ndarray]], frame_rate: float) -> Iterator[tuple[float, np.ndarray]]:
    """The frame shown at each multiple of 1 / frame_rate: a sequence of (seconds, frame) at another rate.

    For sequences that are read once, as they come. The last is that of the last frame's own time.
    """
    tick, shown, seconds = 0, None, 0.0
    for seconds, frame in frames:
        while shown is not None and tick / frame_rate < seconds - _ROUNDING:
            yield tick / frame_rate, shown
            tick += 1
        shown = frame
    while shown is not None and tick / frame_rate <= seconds + _ROUNDING:
        yield tick / frame_rate, shown
        tick += 1
