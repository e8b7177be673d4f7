"""Data: decoding and preprocessing of real video, and the data sets that training and evaluation read."""

import functools
from collections.abc import Callable
from typing import Any

from zoo import registry
from zoo.data.boxed_digits import BoxedDigits
from zoo.data.digit_motion import DigitMotion
from zoo.data.digits import Digits
from zoo.data.labelled_videos import PUBLISHED, is_labelled_videos
from zoo.data.long_tail import LongTailedDigits
from zoo.data.moving_digits import MOVING_MNIST, MovingDigits
from zoo.data.real_clips import RealClips
from zoo.data.spoken_commands import SpokenCommands
from zoo.data.tfds import TensorFlowDataset
from zoo.data.video_clips import VideoClips
from zoo.data.youtube8m import YouTube8M
from zoo.errors import UserError

DATASETS: dict[str, Callable[..., Any]] = {
    "boxed_digits": BoxedDigits,
    "digits": Digits,
    "digit_motion": DigitMotion,
    "long_tailed_digits": LongTailedDigits,
    "moving_digits": MovingDigits,
    "moving_fashion": functools.partial(MovingDigits, **(MOVING_MNIST | {"digits": "fashion"})),
    "real_clips": RealClips,
    "spoken_commands": SpokenCommands,
    "youtube8m": YouTube8M,
}


def open_dataset(name: str, split: str, **options: Any) -> Any:
    """A random-access source of the "train" or "test" split: a name in `DATASETS`, `tfds:NAME`, or labelled videos.

    The last are `folder:DIR`, `csv:FILE` or one of `PUBLISHED`, as in `zoo.data.labelled_videos`.

    Every source has `num_classes` and gives dicts of arrays: "image" or "video" in uint8, with "label" (an index) or
    "classes" (a count a class); or "sound" in int16, with "symbols".

    Raises:
      UserError: no such data set, or it does not take these options.
    """
    kind, _, rest = name.partition(":")
    if kind == "tfds" and rest:
        source = TensorFlowDataset
        options = {"name": rest, **options}
    elif is_labelled_videos(name):
        source = VideoClips
        options = {"name": name, **options}
    elif name in DATASETS:
        source = DATASETS[name]
    else:
        raise registry.unknown("data set", name, [*DATASETS, *PUBLISHED, "tfds:NAME", "folder:DIR", "csv:FILE"])
    try:
        return source(split=split, **options)
    except TypeError as error:
        if "keyword argument" not in str(error) and "positional argument" not in str(error):
            raise
        raise UserError(f"data set {name} does not fit this experiment: {error}") from error
