"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 70,000 pieces of clothing, grey, 28x28, of Debian's package."""

import functools
import gzip
from pathlib import Path

import numpy as np

from zoo import download, hub

_PACKAGE, _FOLDER = "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
_FILES = {  # by split: images and labels in MNIST's layout, and their SHA-256
    "train": (
        ("train-images-idx3-ubyte.gz", "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"),
        ("train-labels-idx1-ubyte.gz", "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte.gz", "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
        ("t10k-labels-idx1-ubyte.gz", "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
    ),
}


@functools.cache
def fashion(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Split "train" (60,000) or "test" (10,000): uint8 images [N, 28, 28] and int32 labels [N]; fetched once, 31 MB.

    Raises:
      UserError: the package cannot be fetched, or holds other files.
    """
    images, labels = (_array(_kept(name, sha256)) for name, sha256 in _FILES[split])
    return images, labels.astype(np.int32)


def _kept(name: str, sha256: str) -> Path:
    kept = hub.cache_folder() / "fashion" / sha256[:12]
    if not kept.exists():
        with hub.new_folder(kept, replace=False) as new:
            by_hand = hub.cache_folder() / "downloads"
            path = download.member("deb", _PACKAGE, f"{_FOLDER}/{name}", new.parent, by_hand=by_hand)
            download.check_sha256(path, sha256, f"{name} in {_PACKAGE}", "get the package anew")
            new.mkdir()
            path.replace(new / name)
    return kept / name


def _array(path: Path) -> np.ndarray:
    """An IDX file of bytes: two zeros, 8 for bytes, the number of axes, their lengths big-endian, then the values."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
