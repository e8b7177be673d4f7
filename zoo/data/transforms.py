"""From a video to what a classifier's weights expect."""

import dataclasses
import functools
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.decode import VideoReader, open_video
from zoo.data.sampling import clip_times, clips_to_cover
from zoo.data.stored import StoredVideo
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
      resize_to: height and width that a frame is stretched to, whatever its aspect, in place of `resize_short`.
      antialias: False interpolates between the four nearest pixels however much a frame is reduced, as torchvision and
        PyTorchVideo do with video; bilinear only.
    """

    num_frames: int
    frame_rate: float
    max_clips: int
    resize_short: int
    crop: int
    interpolation: str
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    resize_to: tuple[int, int] | None = None
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            raise UserError(
                f"interpolation {self.interpolation!r} is not known; there are {', '.join(_INTERPOLATIONS)}"
            )
        short = min(self.resize_to or [self.resize_short])
        if self.crop > short:
            raise UserError(f"a crop of {self.crop} pixels does not fit a short side of {short}")
        if not self.antialias and self.interpolation != "bilinear":
            raise UserError(f"{self.interpolation} interpolation without antialiasing is not known; there is bilinear")

    def __call__(self, video: Any) -> np.ndarray:
        """Samples, resizes, crops and scales.

        Args:
          video: what `opened` takes.

        Returns:
          float32 [clips, num_frames, crop, crop, 3].

        Raises:
          UserError: the video cannot be read, or an array is not uint8 [T, H, W, 3] with at least one frame.
        """
        views = self.sample(video)
        return self.scale(views.reshape(-1, *views.shape[2:]))

    def sample(self, video: Any, num_clips: int | None = None, num_crops: int = 1) -> np.ndarray:
        """The pixels that a model sees, not yet scaled.

        Args:
          video: as in a call.
          num_clips: windows spread evenly over the video; without it as many as cover it, up to `max_clips`.
          num_crops: squares spread evenly over the long side; a single one lies in the middle.

        Returns:
          uint8 [clips, crops, num_frames, crop, crop, 3].

        Raises:
          UserError: as in a call.
        """
        sampling = {"num_frames": self.num_frames, "frame_rate": self.frame_rate}
        with self.opened(video) as reader:
            num_clips = num_clips or min(self.max_clips, clips_to_cover(reader.duration, **sampling))
            times = clip_times(reader.duration, num_clips=num_clips, **sampling)
            pixels = reader.frames_at(times.ravel(), each=functools.partial(self._crops, num_crops=num_crops))
        return pixels.reshape(*times.shape, *pixels.shape[1:]).swapaxes(1, 2)

    def opened(self, video: Any, threads: int = 0) -> VideoReader | StoredVideo:
        """A video to read frames from: what `open_video` takes, uint8 RGB [T, H, W, 3] already at `frame_rate`, or
        such frames at a rate of their own.

        Args:
          video: such.
          threads: as `open_video` takes them.

        Raises:
          UserError: as in a call.
        """
        if isinstance(video, StoredVideo):
            return video
        if hasattr(video, "__array__"):
            return StoredVideo(_checked(np.asarray(video)), self.frame_rate)
        return open_video(video, threads)

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [..., 3] to what the model sees, float32."""
        scaled = pixels.astype(np.float32)
        scaled -= np.asarray(self.mean, np.float32)  # in place: ten clips of 64 frames are 385 MB
        scaled /= np.asarray(self.std, np.float32)
        return scaled

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's for `interpolation`."""
        return _INTERPOLATIONS[self.interpolation]

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to uint8 [crop, crop, 3]."""
        return self._crops(frame, 1)[0]

    def _crops(self, frame: np.ndarray, num_crops: int) -> np.ndarray:
        height, width = frame.shape[:2]
        short = min(height, width)
        whole = height * self.resize_short // short, width * self.resize_short // short
        new_height, new_width = self.resize_to or whole
        if self.antialias:
            pixels = np.asarray(Image.fromarray(frame).resize((new_width, new_height), self.filter))
        else:
            pixels = _between_pixels(frame, new_height, new_width)
        spare = np.array([new_height, new_width]) - self.crop
        shares = np.linspace(0, 1, num_crops) if num_crops > 1 else np.array([0.5])
        along = (0.5, shares) if width >= height else (shares, 0.5)
        corners = np.stack(np.broadcast_arrays(*(side * share for side, share in zip(spare, along, strict=True))), -1)
        return np.stack([pixels[y : y + self.crop, x : x + self.crop] for y, x in np.round(corners).astype(int)])


def grey(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB [T, H, W, 3] to grey [T, H, W, 1] by ITU-R 601's weights."""
    pixels = [np.asarray(Image.fromarray(frame).convert("L")) for frame in frames]
    return np.array(pixels, np.uint8).reshape(*frames.shape[:-1], 1)


def _between_pixels(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3] to [height, width, 3], bilinear between the nearest pixels; those at the border go on outside."""

    def along(axis: int, size: int, pixels: np.ndarray) -> np.ndarray:
        there = pixels.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * (there / size) - 0.5, 0, there - 1)
        before = place.astype(int)
        behind = np.minimum(before + 1, there - 1)
        share = np.expand_dims(place - before, (1, 2) if axis == 0 else (0, 2)).astype(np.float32)
        return pixels.take(before, axis) * (1 - share) + pixels.take(behind, axis) * share

    return np.round(along(1, width, along(0, height, frame.astype(np.float32)))).astype(np.uint8)


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise UserError(
            f"an array of frames is uint8 [time, height, width, 3], not {frames.dtype} {list(frames.shape)}; "
            f"give RGB pixels from 0 to 255"
        )
    if 0 in frames.shape:
        raise UserError(f"an array of shape {list(frames.shape)} has no frames; give at least one")
    return frames
