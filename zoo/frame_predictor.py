"""A published network that predicts frames, asked for the future of a real video."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.data.transforms import Preprocessing
from zoo.errors import UserError
from zoo.given_frames import given_frames
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
        model: Any = self.model
        frames = given_frames(context, self.preprocess, model.channels)
        ahead = predicted(model, to_unit(frames[None]), num_frames)[0]
        wrong = np.flatnonzero(~np.isfinite(ahead).all(axis=(1, 2, 3)))
        if len(wrong):
            raise UserError(f"predicted frame {wrong[0]} is not a number; load {self.card.name} anew, or in float32")
        return to_pixels(ahead)
