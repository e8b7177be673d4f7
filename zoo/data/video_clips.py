"""Clips of labelled videos for training: another part, size and side each time, or the middle one as it is."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.labelled_videos import labelled_videos
from zoo.data.transforms import Preprocessing, grey
from zoo.data.unreadable import Unreadable
from zoo.errors import UserError

_LARGEST = 1.25  # times the short side that a card resizes to, in training (Simonyan and Zisserman 2015)


class VideoClips:
    """Random-access source of `{"video": uint8 [num_frames, crop, crop, channels], "label": int32}`.

    An item is the middle clip of a video as a model's card has it; `draw` gives another one each time. A video that
    cannot be read is noted in `unreadable`, and the next one stands in for it.

    Args:
      name, split, data: as `labelled_videos` takes them.
      preprocessing: a card's: how many frames at which rate, which size, which filter.
      channels: 3, or 1 for grey.
      mirrored: whether `draw` mirrors every other clip; not where left and right are what a class is about.

    Attributes:
      classes: names.
      labels: int32 [N].
      counts: how many videos each class has.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        preprocessing: Any,
        data: str | None = None,
        channels: int = 3,
        mirrored: bool = True,
    ):
        self.videos = labelled_videos(name, split, Path(data) if data else None)
        self.classes, self.num_classes = self.videos.classes, len(self.videos.classes)
        self.labels = np.array(self.videos.labels, np.int32)
        self.counts = self.videos.counts()
        self.preprocessing = Preprocessing(**preprocessing)
        self.channels, self.mirrored = channels, mirrored
        self.unreadable = Unreadable(len(self.videos))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._read(index, lambda video: self.preprocessing.sample(video, num_clips=1)[0, 0])

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A clip from anywhere in the video, at up to 1.25 times the card's size, cut out anywhere."""
        seed = rng.integers(1 << 62)  # what stands in for an unreadable video does not depend on when that was noticed
        return self._read(index, lambda video: self._drawn(video, np.random.default_rng(seed)))

    def _read(self, index: int, read: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
        for number in (*range(index, len(self)), *range(index)):
            if number in self.unreadable.messages:
                continue
            try:
                clip = read(self.videos.video(number))
                return {"video": clip if self.channels == 3 else grey(clip), "label": self.labels[number]}
            except UserError as error:
                self.unreadable.add(number, str(error))
        raise UserError(f"none of {len(self)} videos can be read: {next(iter(self.unreadable.messages.values()))}")

    def _drawn(self, video: Any, rng: np.random.Generator) -> np.ndarray:
        sees = self.preprocessing
        mirror = self.mirrored and rng.random() < 0.5
        scale, place = rng.uniform(1, _LARGEST), rng.uniform(0, 1, 2)
        with sees.opened(video, threads=1) as reader:  # the loader has others at work on other videos
            length = sees.num_frames / sees.frame_rate
            start = rng.uniform(0, max(0.0, reader.duration - length))
            times = np.minimum(start + np.arange(sees.num_frames) / sees.frame_rate, reader.duration)
            clip = reader.frames_at(times, each=functools.partial(self._cut, scale=scale, place=place))
        return clip[:, :, ::-1] if mirror else clip

    def _cut(self, frame: np.ndarray, scale: float, place: np.ndarray) -> np.ndarray:
        """A square of `crop` pixels out of the frame at `scale` times the card's size."""
        height, width = frame.shape[:2]
        side = self.preprocessing.crop * min(height, width) / (self.preprocessing.resize_short * scale)
        left, top = place * (width - side, height - side)
        size = self.preprocessing.crop, self.preprocessing.crop
        image = Image.fromarray(frame).resize(size, self.preprocessing.filter, box=(left, top, left + side, top + side))
        return np.asarray(image)
