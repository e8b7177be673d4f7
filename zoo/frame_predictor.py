"""A published network that predicts frames, asked for the future of a real video."""

from typing import Any

import numpy as np
from flax import nnx
from PIL import Image

from zoo.data.decode import open_video
from zoo.data.sampling import at_rate
from zoo.data.transforms import Preprocessing
from zoo.errors import UserError
from zoo.predictor import Predictor
from zoo.registry import ModelCard
from zoo.tasks.prediction import predicted, to_pixels, to_unit


class FramePredictor(Predictor):
    """Says how a video goes on.

    Attributes:
      preprocess: how the frames of a video file are resized and cropped.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Preprocessing(**card.preprocessing)

    def predict_frames(self, context: Any, num_frames: int) -> np.ndarray:
        """The frames after the context, uint8 [num_frames, H, W, channels].

        Args:
          context: uint8 [T, H, W, 1 or 3], used as it is; or a video, as a path, URL, bytes or file object, whose last
            frames are seen at the size and frame rate of the card's preprocessing.
          num_frames: any number from 1 up; the network goes on from its own predictions.

        Raises:
          UserError: the video cannot be read, is too short, or has sides that do not fit, or the network's answer is
            not a number.
        """
        if num_frames < 1:
            raise UserError(f"{num_frames} frames cannot be predicted; ask for 1 or more")
        frames = self._checked(np.asarray(context)) if hasattr(context, "__array__") else self._decoded(context)
        ahead = predicted(self.model, to_unit(self._in_channels(frames)[None]), num_frames)[0]
        wrong = np.flatnonzero(~np.isfinite(ahead).all(axis=(1, 2, 3)))
        if len(wrong):
            raise UserError(f"predicted frame {wrong[0]} is not a number; load {self.card.name} anew, or in float32")
        return to_pixels(ahead)

    def _decoded(self, video: Any) -> np.ndarray:
        with open_video(video) as reader:
            frames = [
                self.preprocess.resize(frame) for _, frame in at_rate(reader.frames(), self.preprocess.frame_rate)
            ]
        return np.stack(frames)[-self.preprocess.num_frames :]

    @staticmethod
    def _checked(frames: np.ndarray) -> np.ndarray:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
            raise UserError(
                f"a context is uint8 [time, height, width, 1 or 3], not {frames.dtype} {list(frames.shape)}; "
                "give pixels from 0 to 255"
            )
        return frames

    def _in_channels(self, frames: np.ndarray) -> np.ndarray:
        model: Any = self.model
        channels: int = model.channels
        if frames.shape[-1] == channels:
            return frames
        if channels == 3:
            return np.repeat(frames, 3, axis=-1)
        return np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in frames])[..., None]
