"""From a video to what a classifier's weights expect."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.decode import open_video
from zoo.data.sampling import clip_times, clips_to_cover
from zoo.errors import UserError

# Pillow's filters widen with the reduction (they are antialiased), so every stored pixel counts.
_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a card states of its input; calling it turns a video into clips.

    A frame is resized and cropped as by torchvision's `Resize(resize_short)` and `CenterCrop(crop)` on a Pillow image:
    the short side becomes `resize_short`, the long one keeps the aspect, cut to a whole pixel. Pillow, because it is
    exact to a grey level and antialiases; swscale goes from RGB to RGB through YUV. I3D's authors say no more than
    "bilinear, aspect kept, short side 256"; filters that do not antialias differ where a video is reduced.

    Attributes:
      num_frames: frames in a clip.
      frame_rate: frames a second that the clip is sampled at, whatever the video's own rate.
      max_clips: a video gives as many clips as cover it, up to this number.
      resize_short: pixels of the short side before the crop.
      crop: pixels of the square cut out of the middle.
      interpolation: "bilinear" or "bicubic".
      mean, std: of pixels from 0 to 255, one number or one a channel; (pixel - mean) / std is what the model sees.
    """

    num_frames: int
    frame_rate: float
    max_clips: int
    resize_short: int
    crop: int
    interpolation: str
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            raise UserError(
                f"interpolation {self.interpolation!r} is not known; there are {', '.join(_INTERPOLATIONS)}"
            )
        if self.crop > self.resize_short:
            raise UserError(f"a crop of {self.crop} pixels does not fit a short side of {self.resize_short}")

    def __call__(self, video: Any) -> np.ndarray:
        """Samples, resizes, crops and scales.

        Args:
          video: what `open_video` takes, or uint8 RGB [T, H, W, 3] already at `frame_rate`.

        Returns:
          float32 [clips, num_frames, crop, crop, 3].

        Raises:
          UserError: the video cannot be read, or an array is not uint8 [T, H, W, 3] with at least one frame.
        """
        if hasattr(video, "__array__"):
            frames = _checked(np.asarray(video))
            return self._sample(len(frames) / self.frame_rate, lambda times: self._pick(frames, times))
        with open_video(video) as reader:
            return self._sample(reader.duration, lambda times: reader.frames_at(times, each=self.resize))

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [crop, crop, 3]."""
        height, width = frame.shape[:2]
        short = min(height, width)
        new_height, new_width = height * self.resize_short // short, width * self.resize_short // short
        image = Image.fromarray(frame).resize((new_width, new_height), _INTERPOLATIONS[self.interpolation])
        top, left = round((new_height - self.crop) / 2), round((new_width - self.crop) / 2)
        return np.asarray(image)[top : top + self.crop, left : left + self.crop]

    def _pick(self, frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The frames of an array at these times, each resized once."""
        indices, where = np.unique(np.round(times * self.frame_rate).astype(int), return_inverse=True)
        return np.stack([self.resize(np.ascontiguousarray(frames[index])) for index in indices])[where]

    def _sample(self, duration: float, frames_at: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        sampling = {"num_frames": self.num_frames, "frame_rate": self.frame_rate}
        num_clips = min(self.max_clips, clips_to_cover(duration, **sampling))
        times = clip_times(duration, num_clips=num_clips, **sampling)
        clips = frames_at(times.ravel()).astype(np.float32)
        clips -= np.asarray(self.mean, np.float32)  # in place: ten clips of 64 frames are 385 MB
        clips /= np.asarray(self.std, np.float32)
        return clips.reshape(*times.shape, self.crop, self.crop, 3)


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise UserError(
            f"an array of frames is uint8 [time, height, width, 3], not {frames.dtype} {list(frames.shape)}; "
            f"give RGB pixels from 0 to 255"
        )
    if 0 in frames.shape:
        raise UserError(f"an array of shape {list(frames.shape)} has no frames; give at least one")
    return frames
