"""TensorFlow Datasets as a source like any other: `--dataset tfds:cifar10`, MNIST's digits, and stored videos.

Reading a data set that is prepared as ArrayRecord needs no TensorFlow. Preparing one does for most builders, and some
read only TFRecord: then the `tensorflow` extra helps.
"""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.labelled_videos import LabelledVideos
from zoo.data.moving_digits import MOVING_MNIST, MovingDigits
from zoo.data.stored import StoredVideo
from zoo.errors import UserError

_UCF101 = "ucf101_1"  # its first split, in the videos' own size
_UCF101_RATE = 25.0  # frames a second of all its videos (Soomro et al. 2012, arXiv:1212.0402)


class TensorFlowDataset:
    """Random-access source of `{"image": uint8 [size, size, channels], "label": int32}` from an image data set.

    Images are resized to a square (bilinear, antialiased) and made grey or RGB as `channels` asks.
    """

    def __init__(self, name: str, split: str, size: int, channels: int):
        import tensorflow_datasets as tfds

        try:
            builder: Any = tfds.builder(name)
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"tensorflow-datasets has no {name!r}: {reason}") from error
        features = builder.info.features
        if not {"image", "label"} <= set(features or ()):
            raise UserError(f"tfds:{name} has no image and label; it has {', '.join(features or ())}")
        self.num_classes = features["label"].num_classes
        self.size, self.channels = size, channels
        _prepare(builder, f"tfds:{name}")
        self.items = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        from PIL import Image

        item = self.items[index]
        image = Image.fromarray(item["image"].squeeze(-1) if item["image"].shape[-1] == 1 else item["image"])
        image = image.convert("L" if self.channels == 1 else "RGB")
        pixels = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return {
            "image": pixels.reshape(self.size, self.size, self.channels),
            "label": np.asarray(item["label"], np.int32),
        }


@dataclasses.dataclass(frozen=True)
class TensorFlowVideos(LabelledVideos):
    """Videos of a data set that stores their frames; `paths` is empty."""

    items: Any
    frame_rate: float

    def video(self, number: int) -> StoredVideo:
        return StoredVideo(np.asarray(self.items[number]["video"]), self.frame_rate)


def ucf101(split: str, data: Path | None = None) -> TensorFlowVideos:
    """UCF-101's "train" or "test" videos by the first of its three splits; `data` is tensorflow-datasets' folder.

    Raises:
      UserError: another split, or the data set cannot be fetched or prepared.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.video import ucf101 as module

    if split == "all":
        raise UserError("ucf101 is looked at a split at a time: train or test")
    with _told_without_tensorflow("ucf101"):
        builder: Any = module.Ucf101(config=_UCF101, data_dir=data)
    _prepare(builder, "ucf101")
    label: Any = tfds.features.FeaturesDict({"label": builder.info.features["label"]})  # no frame is decoded
    raw = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    return TensorFlowVideos(
        classes=tuple(builder.info.features["label"].names),
        paths=(),
        labels=tuple(int(label.deserialize_example_np(record)["label"]) for record in raw),
        snapshot=f"{len(raw)} videos of tensorflow-datasets' ucf101/{_UCF101} {builder.version}, split {split}",
        items=builder.as_data_source(split=split),
        frame_rate=_UCF101_RATE,
    )


class TensorFlowSequences:
    """Random-access source of `{"video": uint8 [num_frames, H, W, C], "label": 0}`: videos that are all of one class.

    Args:
      items: dicts that hold a video, at least as long, under `name`.
      num_frames: the first ones of each are taken.
    """

    num_classes = 1

    def __init__(self, items: Any, name: str, num_frames: int):
        self.items, self.name, self.num_frames = items, name, num_frames
        length = len(items[0][name])
        if not 1 <= num_frames <= length:
            raise UserError(f"these videos have {length} frames, and {num_frames} were asked for")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        frames = np.stack([np.asarray(frame) for frame in self.items[index][self.name][: self.num_frames]])
        return {"video": frames, "label": np.asarray(0, np.int32)}


def moving_mnist(split: str, num_frames: int = 20, data: str | None = None) -> Any:
    """Moving MNIST: the 10,000 published sequences as "test"; "train" is drawn on the fly from MNIST's digits.

    That is how it was published (Srivastava et al. 2015, arXiv:1502.04681). `data` is tensorflow-datasets' folder.

    Raises:
      UserError: a data set cannot be fetched or prepared.
    """
    if split == "train":
        return MovingDigits("train", **MOVING_MNIST | {"digits": "mnist", "num_frames": num_frames})
    from tensorflow_datasets.video import moving_mnist as module

    with _told_without_tensorflow("moving_mnist"):
        builder: Any = module.MovingMnist(data_dir=data)
    _prepare(builder, "moving_mnist")
    return TensorFlowSequences(builder.as_data_source(split="test"), "image_sequence", num_frames)


def bair_robot_pushing_small(split: str, num_frames: int = 16, data: str | None = None) -> TensorFlowSequences:
    """A robot's arm that pushes things about, 64x64 RGB (Ebert et al. 2017, arXiv:1710.05268), by its main camera.

    30 frames each; the literature's protocol sees one or two of the first 16.

    Raises:
      UserError: the data set cannot be fetched or prepared.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder("bair_robot_pushing_small", data_dir=data)
    _prepare(builder, "bair_robot_pushing_small")
    return TensorFlowSequences(builder.as_data_source(split=split), "image_main", num_frames)


@functools.cache
def mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's split "train" (60,000) or "test" (10,000): uint8 images [N, 28, 28] and int32 labels [N].

    Raises:
      UserError: it cannot be fetched or prepared.
    """
    source = TensorFlowDataset("mnist", split, 28, 1)
    items = [source[index] for index in range(len(source))]
    return np.stack([item["image"][..., 0] for item in items]), np.stack([item["label"] for item in items])


@contextlib.contextmanager
def _told_without_tensorflow(name: str) -> Iterator[None]:
    """Some builders describe themselves in TensorFlow's terms, and say in five lines that it is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ImportError as error:
        raise UserError(f"{name} is described in TensorFlow's terms: install jax-video-zoo[tensorflow]") from error


def _prepare(builder: Any, name: str) -> None:
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise UserError(f"preparing {name} needs {error.name}: install jax-video-zoo[tensorflow]") from error
    except OSError as error:
        raise UserError(f"{name} cannot be fetched or prepared: {str(error).splitlines()[0]}") from error
