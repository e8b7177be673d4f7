"""`zoo detect FILE --out FILE`: objects and people in a video, drawn on it, as JSON or as CSV."""

import contextlib
import csv
import dataclasses
import io
import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from zoo import command_line, output_files, registry
from zoo.errors import UserError

_PERSON = "person"
_UNCOUNTED = 8  # frames


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Finds objects and people in a video and follows them."""

    file: Annotated[str, Positional]
    """Path or address of the video."""
    out: Path | None = None
    """The video with everything drawn on it: .mp4, .mov, .mkv or .webm."""
    json: Path | None = None
    """Every object of every frame as JSON."""
    csv: Path | None = None
    """The same as CSV, a line an object."""
    pose: bool = False
    """Find the joints of people too."""
    labels: str | None = None
    """Only these kinds, with commas between: person,car."""
    threshold: float | None = None
    """The score, 0 to 1, from which on an object is told; the model's own without."""
    tiles: int | None = None
    """Look also at so many squares along the long side, for small objects; takes as much longer."""
    model: str = "centernet_coco"
    """A published model for detection."""
    pose_model: str = "movenet_lightning"
    """A published model for pose."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One object in one frame; `box` is left, top, right, bottom in pixels, `joints` (x, y, score) of each, or None."""

    frame: int
    time: float
    label: str
    score: float
    box: list[float]
    track: int | None
    joints: list[list[float]] | None = None


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo detect")
    _check(arguments)

    from zoo.data.decode import open_video  # after the mistakes that can be told without waiting for JAX

    rows: list[Row] = []
    counts = {"frames": 0, "frame_rate": 0.0, "height": 0, "width": 0}
    pace = _Pace()
    with _terminated_like_interrupted(), open_video(arguments.file) as reader:
        counts |= {"frame_rate": reader.frame_rate, "height": reader.height, "width": reader.width}
        try:
            _detect(arguments, reader, rows, counts, pace)
        finally:  # an interruption leaves what was found so far
            _write_tables(arguments, rows, counts)
            wrote = ", ".join(str(path) for path in (arguments.out, arguments.json, arguments.csv) if path)
            print(f"{counts['frames']} frames, {pace}, {_told(rows)}; wrote {wrote}", file=sys.stderr)


def _check(arguments: Arguments) -> None:
    if not (arguments.out or arguments.json or arguments.csv):
        raise UserError("nothing would be written; give --out FILE.mp4, --json FILE or --csv FILE")
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise UserError(f"--threshold {arguments.threshold} is no score; give one between 0 and 1, such as 0.4")
    if arguments.tiles is not None and not 1 <= arguments.tiles <= 16:
        raise UserError(f"--tiles {arguments.tiles} is not possible; give 1 to 16")
    wanted = {arguments.model: "detection"} | ({arguments.pose_model: "pose"} if arguments.pose else {})
    for name, task in wanted.items():
        made_for = registry.card(name).task
        if made_for != task:
            raise UserError(f"{name} is made for {made_for}; zoo detect takes a model for {task} there")
    for label in _labels(arguments) or ():
        known = registry.card(arguments.model).labels
        if label not in known:
            raise registry.unknown(f"label of {arguments.model}", label, known)
    if arguments.out:
        from zoo.data.video_writer import check_format

        check_format(arguments.out)
    output_files.check_outputs(arguments.file, [*filter(None, (arguments.out, arguments.json, arguments.csv))])


def _labels(arguments: Arguments) -> list[str] | None:
    return [name.strip() for name in arguments.labels.split(",")] if arguments.labels else None


@contextlib.contextmanager
def _terminated_like_interrupted():
    """SIGTERM ends the command through its `finally`s, as Ctrl-C does."""

    def leave(*_: Any) -> None:
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Pace:
    """How many frames a second, without the first ones, which wait for the compiler."""

    def __init__(self) -> None:
        self._frames, self._begun = -_UNCOUNTED, 0.0

    def frame(self) -> None:
        self._frames += 1
        if not self._frames:
            self._begun = time.monotonic()

    def __str__(self) -> str:
        if self._frames <= 0:
            return "too few to tell a pace"
        return f"{self._frames / (time.monotonic() - self._begun):.1f} a second"


def _detect(arguments: Arguments, reader: Any, rows: list[Row], counts: dict[str, Any], pace: _Pace) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo import predictor
    from zoo.data.video_writer import VideoWriter

    detector = predictor.load(arguments.model)
    finder = predictor.load(arguments.pose_model) if arguments.pose else None
    if arguments.tiles is not None:
        detector.preprocess = dataclasses.replace(detector.preprocess, tiles=arguments.tiles)
    labels = _labels(arguments)
    columns = (BarColumn(), TextColumn("{task.fields[pace]}"), TimeRemainingColumn())
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(arguments.out, reader.sound())) if arguments.out else None
        console = Console(stderr=True)
        bar = stack.enter_context(Progress(*columns, console=console, transient=True, disable=not console.is_terminal))
        reading = bar.add_task("", total=reader.duration, pace=pace)
        for seconds, frame, found in detector.follow(reader, arguments.threshold):
            names = [detector.labels[number] for number in found.classes]
            kept = [index for index, name in enumerate(names) if labels is None or name in labels]
            names = [names[index] for index in kept]
            boxes, scores, tracks = found.boxes[kept], found.scores[kept], found.tracks[kept]
            joints = None if finder is None else _joints(finder, frame, boxes, names)
            rows += _rows(counts["frames"], seconds, names, scores, boxes, tracks, joints)
            if writer is not None:
                _draw(writer, seconds, frame, names, scores, boxes, tracks, joints)
            counts["frames"] += 1
            pace.frame()
            bar.update(reading, completed=seconds)


def _joints(finder: Any, frame: Any, boxes: Any, names: list[str]) -> Any:
    """float32 [N, 17, 3], NaN for what is no person."""
    import numpy as np

    people = [index for index, name in enumerate(names) if name == _PERSON]
    joints = np.full((len(names), len(finder.labels), 3), np.nan, np.float32)
    joints[people] = finder.of_boxes(frame, boxes[people])
    return joints


def _rows(frame: int, seconds: float, names: list[str], scores: Any, boxes: Any, tracks: Any, joints: Any) -> list[Row]:
    return [
        Row(
            frame,
            round(seconds, 4),
            name,
            round(float(score), 4),
            [round(float(side), 1) for side in box],
            int(track) or None,
            None if joints is None or name != _PERSON else [[round(float(x), 3) for x in j] for j in joints[index]],
        )
        for index, (name, score, box, track) in enumerate(zip(names, scores, boxes, tracks, strict=True))
    ]


def _draw(
    writer: Any, seconds: float, frame: Any, names: list[str], scores: Any, boxes: Any, tracks: Any, joints: Any
) -> None:
    from zoo import drawing

    texts = [
        f"{name} {score:.2f}" + (f" #{track}" if track else "")
        for name, score, track in zip(names, scores, tracks, strict=True)
    ]
    writer.write(seconds, drawing.draw(frame, boxes, texts, tracks.tolist(), joints))


def _write_tables(arguments: Arguments, rows: list[Row], counts: dict[str, Any]) -> None:
    if arguments.json:
        told = {"file": arguments.file, "model": arguments.model, **counts}
        if arguments.pose:
            told |= {"pose_model": arguments.pose_model, "joints": list(registry.card(arguments.pose_model).labels)}
        objects = [{k: v for k, v in dataclasses.asdict(row).items() if k != "joints" or v} for row in rows]
        text = json.dumps(told | {"objects": objects}, ensure_ascii=False)
        output_files.write_text(arguments.json, text + "\n")
    if arguments.csv:
        output_files.write_text(arguments.csv, _csv(arguments, rows))


def _csv(arguments: Arguments, rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = registry.card(arguments.pose_model).labels if arguments.pose else ()
    joints = [f"{name.replace(' ', '_')}_{what}" for name in names for what in ("x", "y", "score")]
    table.writerow(["time", "frame", "label", "score", "left", "top", "right", "bottom", "track", *joints])
    for row in rows:
        found = [number for joint in row.joints or [] for number in joint] or [""] * len(joints)
        table.writerow([row.time, row.frame, row.label, row.score, *row.box, row.track or "", *found])
    return text.getvalue()


def _told(rows: list[Row]) -> str:
    """How many different objects of which kinds."""
    tracks: dict[str, set[int]] = {}
    for row in rows:
        if row.track:
            tracks.setdefault(row.label, set()).add(row.track)
    most = sorted(tracks.items(), key=lambda item: -len(item[1]))[:5]
    if not most:
        return f"{len(rows)} boxes, none of them followed" if rows else "nothing found"
    return ", ".join(f"{len(numbers)} followed as {label}" for label, numbers in most)


if __name__ == "__main__":
    command_line.run("zoo detect", main)
