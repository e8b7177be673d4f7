"""Clips cut from real videos and photos in every which way, and those of held-out videos as they are."""

import dataclasses
import functools
import json
import math
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from zoo.data.digits import handwritten_digits
from zoo.data.real_films import FILMS, STORED_RATE, frames_of
from zoo.errors import UserError

FRAME_RATE = 8.0  # frames a second, of the clips that are cut

KINDS = ("film", "mixed", "photo", "object", "digits")
"""Training clips: of a film; of two films, one cut to the other or faded into it; of a photo that the camera moves
over; of a film or photo with a part of another that moves across; of such with handwritten digits that move over it."""


@dataclasses.dataclass(frozen=True)
class RealClips:
    """Random-access source of `{"video": uint8 [num_frames, size, size, 3]}`, 8 frames a second.

    The "train" split's clips are of each of `kinds` in turn. Films are chosen by the root of their length; they run
    faster or slower than life or backwards, mirrored, cropped, panned, zoomed and recoloured. What the n-th clip of a
    kind is depends on (seed, kind, n) alone. The "test" split is of the held-out films as they are, the middle square
    of each frame, without overlap, at most `clips_a_film` of each, spread evenly.
    """

    num_classes: ClassVar[int] = 400  # of the teacher that names them

    split: str
    num_frames: int = 32
    size: int = 224
    seed: int = 0
    clips_a_kind: int = 200
    clips_a_film: int = 12
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self):
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"real_clips has no kind of clips {kind!r}; it has {', '.join(KINDS)}")

    @functools.cached_property
    def films(self) -> list[np.ndarray]:
        if self.split not in ("train", "test"):
            raise UserError(f"real_clips has no split {self.split!r}; it has train, test")
        return [frames_of(film) for film in FILMS if film.split == self.split]

    @functools.cached_property
    def photos(self) -> list[np.ndarray]:
        return [frames_of(film) for film in FILMS if film.split == "photo"]

    @functools.cached_property
    def held_out(self) -> list[tuple[int, int]]:
        """(film, first frame) of the test split's clips."""
        step = round(STORED_RATE / FRAME_RATE)
        found = []
        for number, frames in enumerate(self.films):
            whole = max(1, len(frames) // (self.num_frames * step))
            kept = np.unique(np.linspace(0, whole - 1, min(whole, self.clips_a_film)).round().astype(int))
            found += [(number, int(clip) * self.num_frames * step) for clip in kept]
        return found

    def __len__(self) -> int:
        return self.clips_a_kind * len(self.kinds) if self.split == "train" else len(self.held_out)

    def identity(self, index: int) -> str:
        """Everything that item `index` depends on, but for the code: sources with another length or order share it."""
        number, kind = divmod(index, len(self.kinds))
        of = (self.seed, self.kinds[kind], number) if self.split == "train" else self.held_out[index]
        films = [(film.sha256, film.part) for film in FILMS]
        return json.dumps([self.split, self.num_frames, self.size, of, films])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.split == "test":
            number, first = self.held_out[index]
            times = first + np.arange(self.num_frames) * round(STORED_RATE / FRAME_RATE)
            return {"video": self._seen(self.films[number], times, _middle(self.films[number]))}
        number, kind = divmod(index, len(self.kinds))
        kind = self.kinds[kind]
        rng = np.random.default_rng([self.seed, KINDS.index(kind), number])
        match kind:
            case "film":
                clip = self._of_film(rng)
            case "mixed":
                clip = _mixed(rng, self._of_film(rng), self._of_film(rng))
            case "photo":
                clip = self._of_photo(rng)
            case "object":
                clip = _pasted(rng, self._of_either(rng), self._of_either(rng))
            case _:
                clip = _with_digits(rng, self._of_either(rng))
        return {"video": _recoloured(rng, clip)}

    def _of_either(self, rng: np.random.Generator) -> np.ndarray:
        return self._of_film(rng) if rng.random() < 0.5 else self._of_photo(rng)

    def _of_film(self, rng: np.random.Generator) -> np.ndarray:
        weights = np.sqrt([len(frames) for frames in self.films])
        frames = self.films[rng.choice(len(self.films), p=weights / weights.sum())]
        speed = rng.choice([0.5, 1, 1, 1, 1.5, 2]) * STORED_RATE / FRAME_RATE
        span = speed * (self.num_frames - 1)
        times = rng.uniform(0, max(0, len(frames) - 1 - span)) + speed * np.arange(self.num_frames)
        times = np.minimum(times.round().astype(int), len(frames) - 1)
        if rng.random() < 0.2:
            times = times[::-1]
        return self._by_camera(rng, frames, times, moves=rng.random() < 0.3)

    def _of_photo(self, rng: np.random.Generator) -> np.ndarray:
        photo = self.photos[rng.integers(len(self.photos))]
        return self._by_camera(rng, photo, np.zeros(self.num_frames, int), moves=True)

    def _by_camera(self, rng: np.random.Generator, frames: np.ndarray, times: np.ndarray, *, moves: bool) -> np.ndarray:
        """The frames at these times through a window that stands still, or pans and zooms; every other is mirrored."""
        first, last = _box(rng, frames), _box(rng, frames)
        share = np.linspace(0, 1, self.num_frames)[:, None] * moves
        clip = self._seen(frames, times, first * (1 - share) + last * share)
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


def _mixed(rng: np.random.Generator, clip: np.ndarray, other: np.ndarray) -> np.ndarray:
    if rng.random() < 0.6:
        when = rng.integers(len(clip) // 8, len(clip) - len(clip) // 8)
        return np.concatenate([clip[:when], other[: len(clip) - when]])
    first, last = rng.uniform(0, 1, 2)
    share = np.linspace(first, last, len(clip))[:, None, None, None]
    return (clip * (1 - share) + other * share).astype(np.uint8)


def _pasted(rng: np.random.Generator, clip: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A round or square part of another clip moves across; a moving camera behind it makes the parallax."""
    side = int(rng.uniform(0.25, 0.6) * clip.shape[1])
    is_round = rng.random() < 0.5
    from_middle = np.arange(side) - (side - 1) / 2
    inside = (from_middle[:, None] ** 2 + from_middle**2 <= (side / 2) ** 2) | (not is_round)
    return _carried(rng, clip, np.where(inside, 255, 0)[None, :, :, None], other[:, :side, :side])


def _with_digits(rng: np.random.Generator, clip: np.ndarray) -> np.ndarray:
    """One to three digits, each of one colour, move across."""
    for _ in range(rng.integers(1, 4)):
        side = int(rng.uniform(0.2, 0.5) * clip.shape[1])
        images, _ = handwritten_digits("train", 28)
        digit = Image.fromarray(images[rng.integers(len(images))]).resize((side, side), Image.Resampling.BICUBIC)
        colour = rng.integers(0, 256, (1, 1, 1, 3))
        clip = _carried(rng, clip, np.asarray(digit)[None, :, :, None], colour)
    return clip


def _carried(rng: np.random.Generator, clip: np.ndarray, opacity: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """The clip with a patch `[T or 1, side or 1, side or 1, 3]`, carried over it from one place to another.

    `opacity` `[1, side, side, 1]` runs from 0 to 255.
    """
    side, opacity = opacity.shape[1], opacity / 255
    ends = rng.uniform(0, clip.shape[1] - side, (2, 2))
    out = clip.copy()
    for number, share in enumerate(np.linspace(0, 1, len(clip))):
        y, x = (ends[0] * (1 - share) + ends[1] * share).astype(int)
        behind = out[number, y : y + side, x : x + side]
        out[number, y : y + side, x : x + side] = behind + (patch[number % len(patch)] - behind) * opacity[0]
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
