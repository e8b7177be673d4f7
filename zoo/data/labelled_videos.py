"""Lists of videos with their classes: class folders, CSV files, Kinetics and ImageNet as they are published."""

import csv
import dataclasses
import hashlib
import re
import warnings
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.registry import unknown

SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validate", "validation")}
"""What a data set may call its parts."""

PUBLISHED = ("kinetics400", "kinetics600", "kinetics700", "imagenet", "ucf101")
SUFFIXES = (  # of videos
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".webp", ".wmv", ".y4m"),
)
_PICTURES = (".jpeg", ".jpg", ".png")
_SYNSET = re.compile(r"n\d{8}")  # a class of ImageNet: a noun of WordNet, by its offset there
_SHOWN = 5  # of many names in a message
_HELD_OUT_EVERY = 5


@dataclasses.dataclass(frozen=True)
class LabelledVideos:
    """Videos and the class of each; a picture is a video of one frame.

    Attributes:
      classes: names, in alphabetical order.
      paths: of the videos.
      labels: of each video an index into `classes`.
      snapshot: which and how many there are: a figure is of no more than those.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    snapshot: str

    def __len__(self) -> int:
        return len(self.labels)

    def video(self, number: int) -> Any:
        """One of them, as `zoo.data.transforms.Preprocessing` takes it."""
        return self.paths[number]

    def counts(self) -> list[int]:
        """How many videos each class has."""
        counts = [0] * len(self.classes)
        for label in self.labels:
            counts[label] += 1
        return counts


def is_labelled_videos(name: str) -> bool:
    """Whether `labelled_videos` knows what a data set's name means."""
    kind, _, place = name.partition(":")
    return name in PUBLISHED or (kind in ("folder", "csv") and bool(place))


def labelled_videos(name: str, split: str, data: Path | None = None) -> LabelledVideos:
    """The videos of `folder:DIR`, `csv:FILE`, `kinetics400`, `kinetics600`, `kinetics700`, `ucf101` or `imagenet`.

    A folder holds class folders, or a folder of such for each split ("train", "val" or the like). Without those every
    fifth video, by a hash of its name, is held out as "test". A CSV file has the columns path, label and, if there are
    splits, split; paths may be relative to it. Kinetics lies in `data`: the published CSV of a split (label,
    youtube_id, time_start, time_end, split), in `data` or its `annotations/`, beside videos called
    `<youtube_id>_<start>_<end>.mp4` in `<split>/<label>/` or `<split>/`, or class folders without a CSV. ImageNet's
    pictures lie in `data` as `train/<synset>/*.JPEG` and `val/<synset>/*.JPEG`. UCF-101 is what tensorflow-datasets
    makes of it, in `data` if that is given.

    Args:
      split: "train" or "test", or "all" of those.

    Raises:
      UserError: no such data set, folder, file or split, or one in disorder; it names what is wrong.
    """
    kind, _, place = name.partition(":")
    if kind == "folder" and place:
        return _of_folder(Path(place), split)
    if kind == "csv" and place:
        return _of_csv(Path(place), split)
    if name == "ucf101":
        from zoo.data.tfds import ucf101  # tensorflow-datasets is slow to import, and not wanted elsewhere

        return ucf101(split, data)
    if name not in PUBLISHED:
        raise unknown("set of labelled videos", name, ["folder:DIR", "csv:FILE", *PUBLISHED])
    if data is None:
        raise UserError(f"say where {name} lies with --data DIR")
    return _of_folder(data, split, _PICTURES) if name == "imagenet" else _of_kinetics(name, data, split)


def _collected(pairs: Sequence[tuple[Path, str]], what: str, classes: Sequence[str] | None = None) -> LabelledVideos:
    if not pairs:
        raise UserError(f"{what} has no videos; check the path and the split")
    classes = sorted({label for _, label in pairs}) if classes is None else classes
    numbers = {label: number for number, label in enumerate(classes)}
    listed = "\n".join(f"{path.name} {label}" for path, label in pairs)
    digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
    snapshot = f"{len(pairs)} videos of {what}, list {digest}"
    paths, labels = zip(*pairs, strict=True)
    return LabelledVideos(tuple(classes), paths, tuple(numbers[label] for label in labels), snapshot)


def _of_folder(folder: Path, split: str, suffixes: Container[str] = SUFFIXES) -> LabelledVideos:
    if not folder.is_dir():
        raise UserError(f"there is no folder {str(folder)!r}; check the path")
    parts = {part: found for part, names in SPLITS.items() if (found := _first_folder(folder, names))}
    if not parts:
        pairs = list(_of_class_folders(folder, suffixes))
        classes = sorted({label for _, label in pairs})
        kept = [pair for pair in pairs if split in ("all", _side(pair[0].relative_to(folder)))]
        return _collected(kept, f"folder {folder.name}, split {split}", classes)
    wanted = list(parts) if split == "all" else [split]
    if split != "all" and split not in parts:
        there = ", ".join(path.name for path in parts.values())
        raise UserError(f"{folder} has no folder for the split {split!r}; it has {there}")
    pairs = [pair for part in wanted for pair in _of_class_folders(parts[part], suffixes)]
    # Every split knows all classes: a class without a video in one of them is still a class of the head.
    classes = sorted({entry.name for path in parts.values() for entry in _folders(path)})
    return _collected(pairs, f"folder {folder.name}, split {split}", classes)


def _side(path: Path) -> str:
    held_out = int(hashlib.sha256(path.as_posix().encode()).hexdigest(), 16) % _HELD_OUT_EVERY == 0
    return "test" if held_out else "train"


def _first_folder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _of_class_folders(folder: Path, suffixes: Container[str] = SUFFIXES) -> Iterator[tuple[Path, str]]:
    folders = _folders(folder)
    if not folders:
        raise UserError(f"{folder} has no class folders; it wants one folder a class, with its videos in it")
    for entry in folders:
        videos = sorted(path for path in entry.iterdir() if path.suffix.lower() in suffixes)
        if not videos:
            what = "videos" if suffixes is SUFFIXES else "pictures"
            raise UserError(f"the class folder {entry} has no {what}; fill it or take it away")
        yield from ((path, entry.name) for path in videos)


def _rows(file: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in wanted if name not in (rows.fieldnames or ())]
            if missing:
                there = ", ".join(rows.fieldnames or ()) or "none"
                raise UserError(f"{file} has no column {', '.join(missing)}; its first line names {there}")
            return list(rows)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8: {error}") from error


def _of_csv(file: Path, split: str) -> LabelledVideos:
    rows = _rows(file, ("path", "label"))
    has_splits = bool(rows) and "split" in rows[0]
    pairs = [(file.parent / row["path"], row["label"], row.get("split") or "") for row in rows]
    missing = [str(path) for path, _, _ in pairs if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(pairs)} videos of {file} are missing: {_some(missing)}")
    kept = [
        (path, label)
        for path, label, part in pairs
        if split == "all" or (part in SPLITS[split] if has_splits else _side(path.relative_to(file.parent)) == split)
    ]
    return _collected(kept, f"{file.name}, split {split}", sorted({label for _, label, _ in pairs}))


def _of_kinetics(name: str, data: Path, split: str) -> LabelledVideos:
    if not data.is_dir():
        raise UserError(f"there is no folder {str(data)!r}; check the path")
    if split == "all":
        raise UserError(f"{name} is looked at a split at a time: train or test (its validation part)")
    names = SPLITS[split]
    places = [place / f"{part}.csv" for place in (data, data / "annotations") for part in names]
    listed = next((path for path in places if path.is_file()), None)
    folder = _first_folder(data, names)
    if folder is None:
        raise UserError(f"{data} has no folder {' or '.join(names)} with the videos of {name}")
    if listed is None:
        return _collected(list(_of_class_folders(folder)), f"{name}, {folder.name}")
    rows = _rows(listed, ("label", "youtube_id", "time_start", "time_end"))
    pairs, missing = [], 0
    for row in rows:
        try:
            times = f"{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
        except ValueError as error:
            raise UserError(f"{listed}: {row['youtube_id']} has times that are no numbers: {error}") from error
        places = [folder / row["label"], folder / row["label"].replace(" ", "_"), folder]
        paths = [place / f"{row['youtube_id']}_{times}.mp4" for place in places]
        found = next((path for path in paths if path.is_file()), None)
        missing += found is None
        if found is not None:
            pairs.append((found, row["label"]))
    if missing:  # as nearly everywhere: videos vanish from where Kinetics lies
        warnings.warn(f"{missing} of {len(rows)} videos that {listed} lists are not in {folder}", stacklevel=3)
    classes = sorted({row["label"] for row in rows})
    return _collected(pairs, f"{name}, {folder.name}, of {len(rows)} listed", classes)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def as_labels(classes: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Of each class its place among a model's labels; underscores and capitals do not count.

    ImageNet's classes are numbered by their synsets in order, so all synsets together stand for the labels.

    Raises:
      UserError: classes that the model does not know, or only some of the synsets.
    """
    places = {_plain(label): number for number, label in enumerate(labels)}
    if classes and all(_SYNSET.fullmatch(name) for name in classes) and not places.keys() & set(classes):
        if len(classes) != len(labels):
            told = f"there are folders of {len(classes)} synsets and the model has {len(labels)} classes"
            raise UserError(f"{told}; only all of them in order tell which is which")
        return list(range(len(labels)))
    strange = [name for name in classes if _plain(name) not in places]
    if strange:
        raise UserError(f"the model has no label for {len(strange)} of {len(classes)} classes: {_some(strange)}")
    return [places[_plain(name)] for name in classes]


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()
