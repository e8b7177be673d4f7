"""TensorFlow Datasets as a source like any other: `--dataset tfds:cifar10`, and UCF-101's videos.

Reading a data set that is prepared as ArrayRecord needs no TensorFlow. Preparing one does for most builders, and some
read only TFRecord: then the `tensorflow` extra helps.
"""

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.labelled_videos import LabelledVideos
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
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # five lines where TensorFlow is missing
            builder: Any = module.Ucf101(config=_UCF101, data_dir=data)
    except ImportError as error:
        raise UserError("ucf101 is described in TensorFlow's terms: install jax-video-zoo[tensorflow]") from error
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


def _prepare(builder: Any, name: str) -> None:
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise UserError(f"preparing {name} needs {error.name}: install jax-video-zoo[tensorflow]") from error
    except OSError as error:
        raise UserError(f"{name} cannot be fetched or prepared: {str(error).splitlines()[0]}") from error
