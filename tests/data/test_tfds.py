"""tensorflow-datasets as a source: names that are not there, and data prepared as ArrayRecord on disk."""

import io
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tensorflow_datasets.video.moving_mnist
import tensorflow_datasets.video.ucf101
from PIL import Image

from tests import tiny
from zoo.data import open_dataset
from zoo.data.labelled_videos import labelled_videos
from zoo.data.tfds import mnist
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


def test_mnist_s_digits_move_by_the_protocol():
    mnist.cache_clear()
    with tfds.testing.mock_data(num_examples=3):
        images, labels = mnist("train")
        source = open_dataset("moving_mnist", "train", num_frames=4)
        item = source[0]
    mnist.cache_clear()
    assert (images.shape, labels.shape) == ((3, 28, 28), (3,))
    assert (item["video"].shape, item["classes"].sum()) == ((4, 64, 64, 1), 2)
    assert set(np.flatnonzero(item["classes"])) <= set(labels)
    assert item["video"].max() == images.max()


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


class MovingMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builder of that name writes, with frames as above: video n shows n, and its frames their number."""

    __module__ = "moving_mnist"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        frames = tfds.features.Sequence(tfds.features.Image(shape=(64, 64, 1), encoding_format="png"))
        features = tfds.features.FeaturesDict({"image_sequence": frames})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for number in range(3):
            frames = [np.full((64, 64), 50 * number + time, np.uint8) for time in range(20)]
            yield number, {"image_sequence": [picture(frame) for frame in frames]}


def test_the_published_moving_mnist_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.video.moving_mnist, "MovingMnist", MovingMnist)
    source = open_dataset("moving_mnist", "test", data=str(tmp_path))
    assert len(source) == 3
    videos = np.stack([source[number]["video"] for number in range(3)])
    assert videos.shape == (3, 20, 64, 64, 1)
    numbers = videos[:, 0, 0, 0, 0] // 50
    assert sorted(numbers) == [0, 1, 2]
    assert (videos == (50 * numbers[:, None] + np.arange(20))[..., None, None, None]).all()
    with pytest.raises(UserError, match="these videos have 20 frames, and 21 were asked for"):
        open_dataset("moving_mnist", "test", data=str(tmp_path), num_frames=21)


def test_a_robot_s_main_camera_is_read(tmp_path):
    """Of tensorflow-datasets' own description of the data set, with what it mocks in place of the files."""
    with tfds.testing.mock_data(num_examples=2):
        source = open_dataset("bair_robot_pushing_small", "test", num_frames=3)
        assert (len(source), source.num_classes) == (2, 1)
        item = source[1]
        raw = tfds.data_source("bair_robot_pushing_small", split="test")[1]
    assert (item["video"].shape, item["video"].dtype, item["label"]) == ((3, 64, 64, 3), np.uint8, 0)
    np.testing.assert_array_equal(item["video"], np.stack(list(raw["image_main"]))[:3])
