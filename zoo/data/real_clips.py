"""Real videos without labels, taken out of packages, and clips cut from them in every which way.

`real_clips.csv` lists the files, each with its SHA-256. A source is either for training or held out, never both; the
one long film is cut at a shot boundary, each half a source of its own.
"""

import csv
import dataclasses
import functools
import gzip
import hashlib
import math
import shutil
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from zoo import download, hub
from zoo.data.decode import open_video
from zoo.errors import UserError

FRAME_RATE = 8.0  # frames a second, of the clips that are cut
_STORED_RATE = 16.0  # of what is kept decoded, so that a clip can be slower than life
_STORED_SHORT = 200  # pixels of the short side that is kept


@dataclasses.dataclass(frozen=True)
class Film:
    """A video in a package: `member` of `requirement`, a package of the kind `kind` (see `zoo.download.archive`).

    `part` is the share of it that is used, from and to.
    """

    name: str
    split: str
    kind: str
    requirement: str
    member: str
    sha256: str
    part: tuple[float, float] = (0.0, 1.0)


def _films() -> tuple[Film, ...]:
    text = resources.files("zoo.data").joinpath("real_clips.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(Film(part=(float(row.pop("start")), float(row.pop("end"))), **row) for row in rows)


FILMS = _films()


@functools.cache
def frames_of(film: Film) -> np.ndarray:
    """A film's frames uint8 `[T, H, W, 3]`, 16 a second, short side 200, read from disk as they are needed.

    Raises:
      UserError: the package cannot be fetched, or holds another file.
    """
    key = hashlib.sha256(f"{film.sha256} {film.part} {_STORED_RATE} {_STORED_SHORT}".encode()).hexdigest()[:12]
    entry = hub.cache_folder() / "clips" / f"{film.name}-{key}"
    if not entry.exists():
        with hub.new_folder(entry, replace=False) as new:
            by_hand = hub.cache_folder() / "downloads"
            video = download.member(film.kind, film.requirement, film.member, new.parent, by_hand=by_hand)
            if film.member.endswith(".gz"):
                video = _unzipped(video)
            download.check_sha256(video, film.sha256, f"{film.member} in {film.requirement}", "get the package anew")
            new.mkdir()
            with open_video(video) as reader:
                first, last = (share * reader.duration for share in film.part)
                times = np.arange(first, last - 0.5 / _STORED_RATE, 1 / _STORED_RATE)
                np.save(new / "frames.npy", reader.frames_at(times, each=_stored))
    return np.load(entry / "frames.npy", mmap_mode="r")


def _unzipped(path: Path) -> Path:
    plain = path.with_suffix("")
    with gzip.open(path) as packed, plain.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return plain


def _stored(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = _STORED_SHORT / min(height, width)
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True)
class RealClips:
    """Random-access source of `{"video": uint8 [num_frames, size, size, 3]}`, 8 frames a second.

    The "train" split cuts: item i depends on (seed, i) alone. Films are chosen by the root of their length; a clip is
    faster or slower than life, backwards, mirrored, cropped, panned and zoomed, recoloured, faded into another one or
    cut to it, or a still picture that the camera moves over. The "test" split is of the held-out films as they are, the
    middle square of each frame, without overlap, at most `clips_a_film` of each, spread evenly.
    """

    num_classes: ClassVar[int] = 400  # of the teacher that names them

    split: str
    num_frames: int = 32
    size: int = 224
    seed: int = 0
    length: int = 2000
    clips_a_film: int = 12

    @functools.cached_property
    def films(self) -> list[np.ndarray]:
        if self.split not in ("train", "test"):
            raise UserError(f"real_clips has no split {self.split!r}; it has train, test")
        return [frames_of(film) for film in FILMS if film.split == self.split]

    @functools.cached_property
    def held_out(self) -> list[tuple[int, int]]:
        """(film, first frame) of the test split's clips."""
        step = round(_STORED_RATE / FRAME_RATE)
        found = []
        for number, frames in enumerate(self.films):
            whole = max(1, len(frames) // (self.num_frames * step))
            kept = np.unique(np.linspace(0, whole - 1, min(whole, self.clips_a_film)).round().astype(int))
            found += [(number, int(clip) * self.num_frames * step) for clip in kept]
        return found

    def __len__(self) -> int:
        return self.length if self.split == "train" else len(self.held_out)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.split == "test":
            number, first = self.held_out[index]
            times = first + np.arange(self.num_frames) * round(_STORED_RATE / FRAME_RATE)
            return {"video": self._seen(self.films[number], times, _middle(self.films[number]))}
        rng = np.random.default_rng([self.seed, index])
        clip = self._cut(rng)
        kind = rng.choice(["plain", "cut", "faded", "pasted"], p=[0.6, 0.15, 0.1, 0.15])
        if kind != "plain":
            other, when = self._cut(rng), rng.integers(4, self.num_frames - 4)
            if kind == "cut":
                clip = np.concatenate([clip[:when], other[: self.num_frames - when]])
            elif kind == "faded":
                first, last = rng.uniform(0, 1, 2)
                share = np.linspace(first, last, self.num_frames)[:, None, None, None]
                clip = (clip * (1 - share) + other * share).astype(np.uint8)
            else:
                clip = _pasted(rng, clip, other)
        return {"video": _recoloured(rng, clip)}

    def _cut(self, rng: np.random.Generator) -> np.ndarray:
        weights = np.sqrt([len(frames) for frames in self.films])
        frames = self.films[rng.choice(len(self.films), p=weights / weights.sum())]
        speed = 0.0 if rng.random() < 0.1 else rng.choice([0.5, 1, 1, 1, 1.5, 2]) * _STORED_RATE / FRAME_RATE
        span = speed * (self.num_frames - 1)
        times = rng.uniform(0, max(0, len(frames) - 1 - span)) + speed * np.arange(self.num_frames)
        times = np.minimum(times.round().astype(int), len(frames) - 1)
        if rng.random() < 0.2:
            times = times[::-1]
        moves = speed == 0 or rng.random() < 0.3
        boxes = _box(rng, frames), _box(rng, frames)
        share = np.linspace(0, 1, self.num_frames)[:, None] * moves
        clip = self._seen(frames, times, boxes[0] * (1 - share) + boxes[1] * share)
        return clip[:, :, ::-1] if rng.random() < 0.5 else clip

    def _seen(self, frames: np.ndarray, times: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """What is in the boxes `[T, 4]` (left, top, right, bottom) at these times."""
        boxes = np.broadcast_to(boxes, (len(times), 4))
        side = (self.size, self.size)
        return np.stack(
            [
                np.asarray(Image.fromarray(frames[time]).resize(side, Image.Resampling.BILINEAR, box=tuple(box)))
                for time, box in zip(times, boxes, strict=True)
            ]
        )


def _middle(frames: np.ndarray) -> np.ndarray:
    """The square that classifiers are shown: 224 of 256 pixels of the short side."""
    height, width = frames.shape[1:3]
    half = min(height, width) * 224 / 256 / 2
    return np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])


def _box(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """A random part of the picture, a third to all of its square, up to a fifth out of shape."""
    height, width = frames.shape[1:3]
    side = min(height, width) * math.sqrt(rng.uniform(0.33, 1))
    shape = rng.uniform(0.9, 1.1)
    w, h = min(width, side * shape), min(height, side / shape)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.array([left, top, left + w, top + h])


def _pasted(rng: np.random.Generator, clip: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A part of another clip moves across."""
    size = clip.shape[1]
    side = int(rng.uniform(0.25, 0.6) * size)
    patch = other[:, :side, :side]
    ends = rng.uniform(0, size - side, (2, 2))
    out = clip.copy()
    for number, share in enumerate(np.linspace(0, 1, len(clip))):
        y, x = (ends[0] * (1 - share) + ends[1] * share).astype(int)
        out[number, y : y + side, x : x + side] = patch[number]
    return out


def _recoloured(rng: np.random.Generator, clip: np.ndarray) -> np.ndarray:
    """Brightness, contrast, saturation and gamma a little off; one clip in ten is grey."""
    x = clip.astype(np.float32) / 255
    x = x ** np.float32(rng.uniform(0.8, 1.25))
    grey = x.mean(-1, keepdims=True)
    saturation = 0.0 if rng.random() < 0.1 else rng.uniform(0.6, 1.4)
    x = grey + (x - grey) * np.float32(saturation)
    x = (x - 0.5) * np.float32(rng.uniform(0.7, 1.3)) + np.float32(0.5 + rng.uniform(-0.15, 0.15))
    return (x.clip(0, 1) * 255).round().astype(np.uint8)
