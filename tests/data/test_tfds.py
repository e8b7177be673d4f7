"""tensorflow-datasets as a source: names that are not there, and data prepared as ArrayRecord on disk."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from zoo.data import open_dataset
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
