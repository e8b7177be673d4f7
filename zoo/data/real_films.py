"""Real videos and photos without labels, taken out of packages; `real_films.csv` lists them, each with its SHA-256.

A source is for training or held out, never both; the one long film is cut at a shot boundary, each half a source of its
own. Photos are for training: a camera is moved over them.
"""

import csv
import dataclasses
import functools
import gzip
import hashlib
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from zoo import download, hub
from zoo.data.decode import open_video

STORED_RATE = 16.0  # frames a second that are kept decoded, so that a clip can be slower than life
_STORED_SHORT = 200  # pixels of the short side that is kept
_PHOTOS = (".jpg", ".png")


@dataclasses.dataclass(frozen=True)
class Film:
    """A video or photo in a package: `member` of `requirement`, a package of the kind `kind` (`zoo.download.member`).

    `split` is "train", "test" or "photo"; `part` the share of the film that is used, from and to.
    """

    name: str
    split: str
    kind: str
    requirement: str
    member: str
    sha256: str
    part: tuple[float, float] = (0.0, 1.0)


def _films() -> tuple[Film, ...]:
    text = resources.files("zoo.data").joinpath("real_films.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(Film(part=(float(row.pop("start")), float(row.pop("end"))), **row) for row in rows)


FILMS = _films()


@functools.cache
def frames_of(film: Film) -> np.ndarray:
    """A film's frames uint8 `[T, H, W, 3]`, 16 a second, short side 200, read from disk as they are needed.

    Raises:
      UserError: the package cannot be fetched, or holds another file.
    """
    key = hashlib.sha256(f"{film.sha256} {film.part} {STORED_RATE} {_STORED_SHORT}".encode()).hexdigest()[:12]
    entry = hub.cache_folder() / "clips" / f"{film.name}-{key}"
    if not entry.exists():
        with hub.new_folder(entry, replace=False) as new:
            path = fetched(film, new.parent)
            new.mkdir()
            np.save(new / "frames.npy", _photo(path) if path.suffix in _PHOTOS else _video(path, film.part))
    return np.load(entry / "frames.npy", mmap_mode="r")


def fetched(film: Film, folder: Path) -> Path:
    """The film's file, put into a folder.

    Raises:
      UserError: as in `frames_of`.
    """
    by_hand = hub.cache_folder() / "downloads"
    path = download.member(film.kind, film.requirement, film.member, folder, by_hand=by_hand)
    if film.member.endswith(".gz"):
        path = _unzipped(path)
    download.check_sha256(path, film.sha256, f"{film.member} in {film.requirement}", "get the package anew")
    return path


def _unzipped(path: Path) -> Path:
    plain = path.with_suffix("")
    with gzip.open(path) as packed, plain.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return plain


def _photo(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return _stored(np.asarray(image.convert("RGB")))[None]


def _video(path: Path, part: tuple[float, float]) -> np.ndarray:
    with open_video(path) as reader:
        first, last = (share * reader.duration for share in part)
        times = np.arange(first, last - 0.5 / STORED_RATE, 1 / STORED_RATE)
        return reader.frames_at(times, each=_stored)


def _stored(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = _STORED_SHORT / min(height, width)
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
