"""The 5,000 handwritten digits of 20x20 on the sheet in OpenCV's documentation, which Debian's opencv-doc holds.

MNIST's digits are of 20x20 too, in the middle of 28x28.
"""

import functools

import numpy as np

from zoo import download, hub

_PACKAGE, _MEMBER = "opencv-doc", "usr/share/doc/opencv-doc/examples/data/digits.png"
_SHA256 = "60c917758ef97cc090f35cd8e293e4de691ef942847da0ff80dedab33d57c662"
_SIDE, _MARGIN = 20, 4
_HELD_OUT_EVERY = 5


def sheet() -> np.ndarray:
    """The sheet, uint8 [1000, 2000]: for each class five rows of a hundred; fetched once, with its 96 MB package.

    Raises:
      UserError: the package cannot be fetched, or holds another sheet.
    """
    from PIL import Image

    kept = hub.cache_folder() / "digits" / _SHA256[:12]
    if not kept.exists():
        with hub.new_folder(kept, replace=False) as new:
            by_hand = hub.cache_folder() / "downloads"
            path = download.member("deb", _PACKAGE, _MEMBER, new.parent, by_hand=by_hand)
            download.check_sha256(path, _SHA256, f"{_MEMBER} in {_PACKAGE}", "get the package anew")
            new.mkdir()
            path.replace(new / "digits.png")
    with Image.open(kept / "digits.png") as image:
        return np.asarray(image.convert("L"))


@functools.cache
def sheet_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Split "train" (4,000) or "test" (1,000): uint8 images [N, 28, 28] like MNIST's, and int32 labels [N].

    Every fifth digit is held out: neither split ever holds a digit of the other.
    """
    whole = sheet()
    tiles = whole.reshape(whole.shape[0] // _SIDE, _SIDE, -1, _SIDE).swapaxes(1, 2).reshape(-1, _SIDE, _SIDE)
    labels = np.repeat(np.arange(10, dtype=np.int32), len(tiles) // 10)
    held_out = np.arange(len(tiles)) % _HELD_OUT_EVERY == 0
    keep = held_out if split == "test" else ~held_out
    return np.pad(tiles[keep], ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))), labels[keep]
