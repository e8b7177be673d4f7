"""`zoo report FILE --out report.html`: one page that shows a video whole, and needs nothing beside it."""

import base64
import dataclasses
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from zoo import command_line, output_files, registry
from zoo.errors import UserError

_SHORT_SIDE = 360  # pixels of the copy in the page
_LEAST = 0.05  # the probability from which on a label is told that is not the first
_LABELS = 8  # rows of the table
_LARGE = 100e6  # bytes, above which browsers take a while


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Makes a page of a video: player, shots, labels over time, objects, what is said, and the models' cards."""

    file: Annotated[str, Positional]
    """Path or address of the video."""
    out: Path | None = None
    """Where the page goes, a .html: <name>-report.html without."""
    model: str = "i3d_kinetics400"
    """A published classifier."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo report")
    task = registry.card(arguments.model).task
    if task != "classification":
        raise UserError(f"{arguments.model} is made for {task}; zoo report takes a model for classification")
    out = arguments.out or output_files.free(Path(Path(arguments.file).stem + "-report.html"))
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the page is HTML, which {out} is not named as; give --out NAME.html")
    output_files.check_outputs(arguments.file, [out])

    name = Path(arguments.file).name.encode(errors="backslashreplace").decode()  # one that is not UTF-8 stays legible

    from zoo.data.decode import open_video  # after the mistakes that can be told without waiting for JAX
    from zoo.data.source import open_source
    from zoo.video_analysis import VideoAnalyser

    source = open_source(arguments.file)  # once, as an address is fetched to be read
    try:
        analyser = VideoAnalyser(arguments.model)
        analysis = _analyse(analyser, source.file)
        with open_video(source.file) as reader:
            page = _page(name, analysis, _copy(reader), analyser.names)
    finally:
        source.close()
    if len(page) > _LARGE:
        warnings.warn(f"{out} has {len(page) / 1e6:.0f} MB; browsers take a while to open it", stacklevel=1)
    output_files.write_text(out, page)
    print(f"{len(analysis.shots)} shots; wrote {out}", file=sys.stderr)


def _analyse(analyser: Any, file: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    from zoo.data.decode import open_video

    with open_video(file) as reader:
        duration = reader.duration
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        looking = bar.add_task("looking and listening", total=duration)
        return analyser(file, lambda seconds: bar.update(looking, completed=seconds))


def _copy(reader: Any) -> bytes:
    """A small MP4 that browsers play."""
    from zoo.excerpt import write_small_copy

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "the copy in the page.mp4"  # notes name it
        write_small_copy(reader, _SHORT_SIDE, path)
        return path.read_bytes()


def _page(name: str, analysis: Any, video: bytes, models: dict[str, str]) -> str:
    from zoo.contact_sheet import clock
    from zoo.web_pages import render

    facts = (
        f"{clock(analysis.duration)} long, {analysis.width}x{analysis.height}, {analysis.frame_rate:.4g} frames a "
        f"second, {len(analysis.shots)} shots"
    )
    used = [role for role in models if role != "speech" or analysis.speech]
    return render(
        "report.html",
        name=name,
        facts=facts,
        video=base64.b64encode(video).decode(),
        shots=analysis.shots,
        segments=[_segment(segment) for segment in analysis.segments],
        table=labels_over_time(analysis.segments),
        objects=objects_over_time(analysis.segments),
        speech=analysis.speech,
        detector=models["objects"],
        cards=[registry.card(models[role]) for role in used],
    )


def _segment(segment: Any) -> dict[str, Any]:
    """What the page tells of it."""
    from zoo.segment_table import jpeg

    told = {name: getattr(segment, name) for name in ("start", "end", "objects", "words")}
    happens, seen = (
        [(label, share) for label, share in labels[:3] if share >= _LEAST] or [labels[0]]
        for labels in (segment.labels, segment.frame_labels)
    )
    return {
        **told,
        "labels": happens,
        "frame_labels": seen,
        "picture": base64.b64encode(jpeg(segment.picture)).decode(),
    }


def labels_over_time(segments: Any) -> list[tuple[str, list[float]]]:
    """The labels whose probability rises highest, and of each its probability in every segment, 0 where it is lower
    than the five best."""
    peaks: dict[str, float] = {}
    for segment in segments:
        for label, share in segment.labels:
            peaks[label] = max(share, peaks.get(label, 0.0))
    best = sorted(peaks, key=lambda label: -peaks[label])
    best = [label for place, label in enumerate(best) if not place or peaks[label] >= _LEAST][:_LABELS]
    return [(label, [dict(segment.labels).get(label, 0.0) for segment in segments]) for label in best]


def objects_over_time(segments: Any) -> list[tuple[str, list[tuple[float, float]]]]:
    """The kinds of objects, those seen most often first, with starts and ends of the segments that show them."""
    found: dict[str, list[tuple[float, float]]] = {}
    for segment in segments:
        for label, _ in segment.objects:
            found.setdefault(label, []).append((segment.start, segment.end))
    return sorted(found.items(), key=lambda item: -len(item[1]))


if __name__ == "__main__":
    command_line.run("zoo report", main)
