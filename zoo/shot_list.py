"""Shots as JSON, CSV and EDL (CMX 3600, what editing programs read)."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.shot_detector import Shot

type Tags = dict[str, list[tuple[str, float]]]
"""(label, probability) pairs, best first, by the name of what told them."""


@dataclasses.dataclass(frozen=True)
class ShotList:
    """The shots of a film, and what a file of them tells.

    Attributes:
      file: the film.
      model: which network found the shots.
      frame_rate: frames a second, on average.
      frames: how many there are.
      duration: seconds.
      tags: one entry a shot, or none at all.
    """

    file: str
    model: str
    frame_rate: float
    frames: int
    duration: float
    shots: Sequence[Shot]
    tags: Sequence[Tags] = ()

    def to_json(self) -> str:
        """One object; `shots` holds one a shot, with its tags as lists of labels with probabilities."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        told["shots"] = [
            {"number": number} | dataclasses.asdict(shot) | {source: _labels(tags) for source, tags in by.items()}
            for number, (shot, by) in enumerate(self._tagged(), 1)
        ]
        del told["tags"]
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """A line a shot: number, first and last frame, start and end in seconds, boundary, and its likeliest tags."""
        names = list(self.tags[0]) if self.tags else []
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        fields = [field.name for field in dataclasses.fields(Shot)]
        rows.writerow(["number", *fields, *(f"{name}{what}" for name in names for what in ("", "_probability"))])
        for number, (shot, by) in enumerate(self._tagged(), 1):
            best = [by[name][0] for name in names]
            tags = [cell for label, probability in best for cell in (label, f"{probability:.4f}")]
            boundary = "" if shot.boundary is None else f"{shot.boundary:.4f}"
            rows.writerow(
                [number, shot.first_frame, shot.last_frame, f"{shot.start:.3f}", f"{shot.end:.3f}", boundary, *tags]
            )
        return text.getvalue()

    def to_edl(self) -> str:
        """An edit decision list of the film's own shots, one event each, source and record alike.

        Timecodes count frames at the nearest whole rate without dropping any, so that they find the right frame even
        at 29.97 a second.
        """
        rate = max(1, round(self.frame_rate))
        title = Path(self.file).stem or self.file
        lines = [f"TITLE: {title}", "FCM: NON-DROP FRAME"]
        for number, (shot, by) in enumerate(self._tagged(), 1):
            start, end = _timecode(shot.first_frame, rate), _timecode(shot.last_frame + 1, rate)
            lines += ["", f"{number:03d}  AX       V     C        {start} {end} {start} {end}"]
            lines.append(f"* FROM CLIP NAME: {Path(self.file).name}")
            lines += [f"* COMMENT: {source}: {tags[0][0]} {tags[0][1]:.2f}" for source, tags in by.items()]
        return "\n".join(lines) + "\n"

    def _tagged(self) -> list[tuple[Shot, Tags]]:
        return list(zip(self.shots, self.tags or [{}] * len(self.shots), strict=True))


FORMATS = {"json": ShotList.to_json, "csv": ShotList.to_csv, "edl": ShotList.to_edl}


def format_of(path: str | os.PathLike | None, asked: str | None) -> str:
    """The format that is asked for, else the one of a path's suffix, else JSON.

    Raises:
      UserError: there is no such format.
    """
    name = asked or (Path(path).suffix[1:].lower() if path else "json")
    if name not in FORMATS:
        told = f"the format {name!r}" if name else f"the format of {os.fspath(path or '')!r}"
        raise UserError(f"{told} is not known; give a name that ends in .json, .csv or .edl, or --format")
    return name


def _labels(tags: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in tags]


def _timecode(frame: int, rate: int) -> str:
    seconds, frames = divmod(frame, rate)
    return f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"
