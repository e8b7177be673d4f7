"""The 1,797 handwritten digits that scikit-learn ships (UCI Optical Recognition of Handwritten Digits, 8x8 grey)."""

import functools

import numpy as np

NUM_CLASSES = 10

# Every fifth digit is held out: neither split ever holds a digit of the other.
_HELD_OUT_EVERY = 5


@functools.cache
def handwritten_digits(split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split "train" or "test": uint8 images `[N, size, size]`, bicubic from 8x8, and int32 labels `[N]`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    held_out = np.arange(len(labels)) % _HELD_OUT_EVERY == 0
    keep = held_out if split == "test" else ~held_out
    # scikit-learn's grey values run from 0 to 16.
    pixels = np.round(images[keep].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in pixels]
    return np.stack(resized), labels[keep].astype(np.int32)


class Digits:
    """Random-access source of `{"image": uint8 [size, size, channels], "label": int32}`."""

    num_classes = NUM_CLASSES

    def __init__(self, split: str, size: int = 28, channels: int = 1):
        self.images, self.labels = handwritten_digits(split, size)
        self.channels = channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = np.repeat(self.images[index, :, :, None], self.channels, -1)
        return {"image": image, "label": self.labels[index]}
