"""`zoo shots FILE`: the shots of a film as JSON, CSV or EDL, and a contact sheet of them."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from zoo import command_line, output_files, registry
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Finds the shots of a film."""

    file: Annotated[str, Positional]
    """Path or address of the film."""
    out: Path | None = None
    """Where the list of shots goes, a .json, .csv or .edl; without, to stdout."""
    format: str | None = None
    """json, csv or edl, whatever the name of --out ends in."""
    sheet: Path | None = None
    """Where the contact sheet goes: <name>-shots.png without."""
    tags: bool = False
    """Say also what each shot shows, in the labels of ImageNet and Kinetics; takes much longer."""
    top: int = 5
    """How many labels of each to tell."""
    threshold: float | None = None
    """The probability, 0 to 1, from which on a frame ends a shot; 0.5 without."""
    model: str = "transnetv2"
    """A published model for shot boundaries."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo shots")
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise UserError(f"--threshold {arguments.threshold} is no probability; give one between 0 and 1, such as 0.5")
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} asks for no label; give 1 or more")
    task = registry.card(arguments.model).task
    if task != "shot boundaries":
        raise UserError(f"{arguments.model} is made for {task}; zoo shots takes a model for shot boundaries")
    sheet = arguments.sheet or output_files.free(Path(Path(arguments.file).stem + "-shots.png"))
    if sheet.suffix.lower() != ".png":
        raise UserError(f"the contact sheet is a PNG, which {sheet} is not named as; give --sheet NAME.png")
    output_files.check_outputs(arguments.file, [*filter(None, (arguments.out, sheet))])

    from zoo import shot_list  # after the mistakes that can be told without waiting for JAX

    format_name = shot_list.format_of(arguments.out, arguments.format)

    from zoo import contact_sheet
    from zoo.data.decode import open_video
    from zoo.data.encode import write_picture

    with open_video(arguments.file) as reader:
        found = _find(arguments, reader)
        text = shot_list.FORMATS[format_name](found)
        if arguments.out is None:
            sys.stdout.write(text)
        else:
            output_files.write_text(arguments.out, text)
        pixels = contact_sheet.draw(reader, found.shots, found.tags)
        with output_files.refusal_told(sheet):
            write_picture(sheet, pixels, enlarge=1)
    wrote = " and ".join(str(path) for path in (arguments.out, sheet) if path)
    print(f"{len(found.shots)} shots; wrote {wrote}", file=sys.stderr)


def _find(arguments: Arguments, reader: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    from zoo import shot_tags
    from zoo.predictor import load
    from zoo.shot_detector import shots_of
    from zoo.shot_list import ShotList

    detector = load(arguments.model)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        reading = bar.add_task("finding shots", total=reader.duration)
        known = detector.transitions(reader, lambda seconds: bar.update(reading, completed=seconds))
        bar.update(reading, completed=reader.duration)
        threshold = detector.preprocess.threshold if arguments.threshold is None else arguments.threshold
        shots, tags = shots_of(known, threshold), []
        if arguments.tags:
            tagging = bar.add_task("naming what they show", total=len(shots))
            classifiers = {source: load(name) for source, name in shot_tags.MODELS.items()}
            tags = shot_tags.tag(reader, shots, classifiers, top=arguments.top, progress=lambda: bar.advance(tagging))
    return ShotList(arguments.file, arguments.model, reader.frame_rate, len(known.times), reader.duration, shots, tags)


if __name__ == "__main__":
    command_line.run("zoo shots", main)
