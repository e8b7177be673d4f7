"""TensorFlow Datasets as a source like any other: `--dataset tfds:cifar10`.

Reading a data set that is prepared as ArrayRecord needs no TensorFlow. Preparing one does for most builders, and some
read only TFRecord: then the `tensorflow` extra helps.
"""

from typing import Any

import numpy as np

from zoo.errors import UserError


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
        try:
            builder.download_and_prepare(file_format="array_record")
        except ImportError as error:
            raise UserError(f"preparing tfds:{name} needs TensorFlow: install jax-video-zoo[tensorflow]") from error
        except OSError as error:
            raise UserError(f"tfds:{name} cannot be fetched or prepared: {str(error).splitlines()[0]}") from error
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
