"""Fashion-MNIST out of its package: the numbers that its authors publish, and clips of clothes that move."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from zoo.data import fashion, open_dataset


def test_an_idx_file_is_read(tmp_path: Path):
    """By the layout's description: magic number, lengths, values row by row."""
    file = tmp_path / "images.gz"
    values = bytes(range(24))
    file.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + values))
    array = fashion._array(file)
    assert (array.shape, array.dtype) == ((2, 3, 4), np.uint8)
    assert array[1, 2, 3] == 23
    assert array[1, 0].tolist() == [12, 13, 14, 15]


@pytest.mark.slow
def test_the_published_images():
    """60,000 and 10,000, as many of each class (arXiv:1708.07747, table 1)."""
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = fashion.fashion(split)
        assert images.shape == (count, 28, 28)
        assert np.bincount(labels).tolist() == [count // 10] * 10


@pytest.mark.slow
def test_clothes_move():
    clip = open_dataset("moving_fashion", "test")[3]
    assert clip["video"].shape == (20, 64, 64, 1)
    assert clip["classes"].sum() == 2
    images, _ = fashion.fashion("test")
    brightest = images.reshape(len(images), -1).max(axis=1)
    assert (clip["video"].reshape(20, -1).max(axis=1) >= brightest.min()).all()
    assert np.abs(np.diff(clip["video"].astype(int), axis=0)).reshape(19, -1).any(axis=1).all()
