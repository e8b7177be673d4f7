"""Data: decoding and preprocessing of real video, and the data sets that training and evaluation read."""

import inspect
from collections.abc import Callable
from typing import Any

from zoo import registry
from zoo.data.boxed_digits import BoxedDigits
from zoo.data.digit_motion import DigitMotion
from zoo.data.digits import Digits
from zoo.data.labelled_videos import PUBLISHED, is_labelled_videos
from zoo.data.long_tail import LongTailedDigits
from zoo.data.moving_digits import MovingDigits, moving_fashion, stochastic_moving_digits
from zoo.data.real_clips import RealClips
from zoo.data.spoken_commands import SpokenCommands
from zoo.data.tfds import TensorFlowDataset, bair_robot_pushing_small, moving_mnist
from zoo.data.video_clips import VideoClips
from zoo.data.youtube8m import YouTube8M
from zoo.errors import UserError

DATASETS: dict[str, Callable[..., Any]] = {
    "bair_robot_pushing_small": bair_robot_pushing_small,
    "boxed_digits": BoxedDigits,
    "digits": Digits,
    "digit_motion": DigitMotion,
    "long_tailed_digits": LongTailedDigits,
    "moving_digits": MovingDigits,
    "moving_fashion": moving_fashion,
    "moving_mnist": moving_mnist,
    "real_clips": RealClips,
    "spoken_commands": SpokenCommands,
    "stochastic_moving_digits": stochastic_moving_digits,
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
    source, named = _source(name)
    try:
        return source(split=split, **named, **options)
    except TypeError as error:
        if "keyword argument" not in str(error) and "positional argument" not in str(error):
            raise
        raise UserError(f"data set {name} does not fit this experiment: {error}") from error


def options_of(name: str) -> list[str]:
    """Names of the options that `open_dataset` takes for a data set.

    Raises:
      UserError: no such data set.
    """
    source, named = _source(name)
    return [option for option in inspect.signature(source).parameters if option not in ("split", *named)]


def _source(name: str) -> tuple[Callable[..., Any], dict[str, str]]:
    """What opens a data set, and what it is told of the name."""
    kind, _, rest = name.partition(":")
    if kind == "tfds" and rest:
        return TensorFlowDataset, {"name": rest}
    if is_labelled_videos(name):
        return VideoClips, {"name": name}
    if name in DATASETS:
        return DATASETS[name], {}
    raise registry.unknown("data set", name, [*DATASETS, *PUBLISHED, "tfds:NAME", "folder:DIR", "csv:FILE"])
