"""tensorflow-datasets as a source: names that are not there, and data prepared as ArrayRecord on disk."""

import io
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tensorflow_datasets.video.ucf101
from PIL import Image

from tests import tiny
from zoo.data import open_dataset
from zoo.data.labelled_videos import labelled_videos
from zoo.errors import UserError


def test_mocked_images_arrive_resized_and_in_the_channels_asked_for():
    with tfds.testing.mock_data(num_examples=5):
        source = open_dataset("tfds:mnist", "train", size=20, channels=3)
        assert len(source) == 5
        assert source.num_classes == 10
        item = source[3]
        raw = tfds.data_source("mnist", split="train")[3]
    assert item["image"].shape == (20, 20, 3)
    assert item["image"].dtype == np.uint8
    assert (item["image"][..., :1] == item["image"]).all()
    assert item["label"] == raw["label"]


def test_an_unknown_builder_is_told():
    with pytest.raises(UserError, match="tensorflow-datasets has no 'no_such_thing'"):
        open_dataset("tfds:no_such_thing", "train", size=20, channels=3)


def picture(frame: np.ndarray) -> io.BytesIO:
    """As a PNG file; of arrays tensorflow-datasets makes pictures with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    file.seek(0)
    return file


class Ucf101(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builder of that name writes, its `Video` a sequence of pictures, whose description wants no TensorFlow.

    Video n of a split has 50 frames, two seconds, of the grey 100 n and their own number.
    """

    __module__ = "ucf101"  # of a package's builders the files are looked for
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="ucf101_1")]

    def _info(self):
        frames = tfds.features.Sequence(tfds.features.Image(shape=(12, 16, 3), encoding_format="png"))
        label = tfds.features.ClassLabel(names=["Archery", "YoYo"])
        features = tfds.features.FeaturesDict({"video": frames, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(2), "test": self._generate_examples(1)}

    def _generate_examples(self, count):
        for number in range(count):
            frames = [np.full((12, 16, 3), 100 * number + time, np.uint8) for time in range(50)]
            yield number, {"video": [picture(frame) for frame in frames], "label": number}


def test_ucf101_is_sampled_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.video.ucf101, "Ucf101", Ucf101)
    sees = tiny.PREPROCESSING | {"num_frames": 4, "frame_rate": 5.0}
    source = open_dataset("ucf101", "train", data=str(tmp_path), preprocessing=sees)
    assert (source.classes, source.counts) == (("Archery", "YoYo"), [1, 1])
    middle = [15, 20, 25, 30]  # four of ten moments, a fifth of a second or five frames apart
    for number, label in enumerate(source.labels):
        item = source[number]
        assert item["label"] == label
        assert item["video"].shape == (4, 8, 8, 3)
        assert (item["video"] == (100 * label + np.array(middle))[:, None, None, None]).all()
    drawn = source.draw(0, np.random.default_rng(0))["video"][:, 0, 0, 0] % 100
    assert (np.diff(drawn) == 5).all()
    videos = labelled_videos("ucf101", "test", tmp_path)
    assert (len(videos), videos.counts()) == (1, [1, 0])
    assert "1 videos of tensorflow-datasets' ucf101/ucf101_1 2.0.0, split test" in videos.snapshot
    with pytest.raises(UserError, match="ucf101 is looked at a split at a time"):
        labelled_videos("ucf101", "all", tmp_path)
