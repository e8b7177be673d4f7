"""Frames that a network goes on from, given as pixels or as a video of any kind."""

from typing import Any

import numpy as np

from zoo.data.decode import open_video
from zoo.data.sampling import at_rate
from zoo.data.transforms import Preprocessing, grey
from zoo.errors import UserError


def given_frames(video: Any, preprocess: Preprocessing, channels: int) -> np.ndarray:
    """The last frames of a video, uint8 [T, H, W, channels].

    Args:
      video: uint8 [T, H, W, 1 or 3], used as it is; or a path, URL, bytes or file object, of which no more than
        `preprocess.num_frames` are given, in the size and at the frame rate that `preprocess` tells.
      channels: 1 or 3; colours are made grey, and grey three colours.

    Raises:
      UserError: the video cannot be read, or the array is of another kind.
    """
    frames = _checked(np.asarray(video)) if hasattr(video, "__array__") else _decoded(video, preprocess)
    if frames.shape[-1] == channels:
        return frames
    return np.repeat(frames, 3, axis=-1) if channels == 3 else grey(frames)


def _decoded(video: Any, preprocess: Preprocessing) -> np.ndarray:
    with open_video(video) as reader:
        frames = [preprocess.resize(frame) for _, frame in at_rate(reader.frames(), preprocess.frame_rate)]
    return np.stack(frames)[-preprocess.num_frames :]


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        raise UserError(
            f"a context is uint8 [time, height, width, 1 or 3], not {frames.dtype} {list(frames.shape)}; "
            "give pixels from 0 to 255"
        )
    return frames
