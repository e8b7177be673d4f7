"""YouTube-8M's frame features: what Inception and a sound network see, once a second (Abu-El-Haija et al. 2016,
arXiv:1609.08675)."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data import tfrecord
from zoo.errors import UserError

FEATURES = {"rgb": 1024, "audio": 128}
_LEAST, _MOST = -2.0, 2.0  # of what was quantised to a byte

_SPLITS = {"train": "train*.tfrecord", "test": "validate*.tfrecord"}


def dequantised(values: np.ndarray) -> np.ndarray:
    """uint8 to float32: the middle of each of 256 equal parts of [-2, 2], with the half step that its authors add."""
    span = _MOST - _LEAST
    return values.astype(np.float32) * np.float32(span / 255) + np.float32(span / 512 + _LEAST)


class YouTube8M:
    """Random-access source of `{"features": float32 [num_frames, 1152], "frames": int32, "classes": float32 [3862]}`.

    `frames` says how many of the features are a video's: a shorter one is filled up with zeros, of a longer one the
    first `num_frames` seconds are taken. `classes` is 1 for each of its labels. The files are those that are published,
    `train*.tfrecord` and `validate*.tfrecord`, in `data`.

    Raises:
      UserError: no folder is given, or it has no such files, or one is damaged or of another kind.
    """

    num_classes: ClassVar[int] = 3862

    def __init__(self, split: str, *, data: str | None = None, num_frames: int = 300):
        if split not in _SPLITS:
            raise UserError(f"youtube8m has no split {split!r}; it has {', '.join(_SPLITS)}")
        if data is None:
            raise UserError("say where youtube8m lies with --data DIR")
        self.num_frames = num_frames
        paths = list(tfrecord.paths_of(Path(data), _SPLITS[split]))
        if not paths:
            raise UserError(f"{data} has no files {_SPLITS[split]}; say where YouTube-8M's frame features lie")
        self._records = [(path, offset) for path in paths for offset in tfrecord.offsets(path)]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        path, offset = self._records[index]
        example = tfrecord.sequence_example(tfrecord.record_at(path, offset))
        lists = example.feature_lists.feature_list
        parts = []
        for name, size in FEATURES.items():
            if name not in lists:
                raise UserError(f"the record at byte {offset} of {path} has no {name}; these are no frame features")
            steps = [feature.bytes_list.value[0] for feature in lists[name].feature[: self.num_frames]]
            if any(len(step) != size for step in steps):
                raise UserError(f"{name} in the record at byte {offset} of {path} has not {size} bytes a frame")
            parts.append(np.frombuffer(b"".join(steps), np.uint8).reshape(-1, size))
        frames = min(map(len, parts))
        features = np.zeros((self.num_frames, sum(FEATURES.values())), np.float32)
        features[:frames] = dequantised(np.concatenate([part[:frames] for part in parts], axis=1))
        classes = np.zeros(self.num_classes, np.float32)
        labels = list(example.context.feature["labels"].int64_list.value)
        if any(not 0 <= label < self.num_classes for label in labels):
            raise UserError(f"the record at byte {offset} of {path} has a label outside 0 to {self.num_classes - 1}")
        classes[labels] = 1
        return {"features": features, "frames": np.asarray(frames, np.int32), "classes": classes}
