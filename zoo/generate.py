"""`zoo generate --digits 3 7 --num 16 --out grid.gif`: clips that a model draws, side by side in one file."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from zoo import command_line, output_files, registry
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draws clips."""

    out: Path
    """Where they go: .gif, .webp or .mp4, all moving side by side, or .png, frame beside frame, a line a clip."""
    model: str = "video_gen_moving_digits"
    """A published model for generation."""
    digits: tuple[str, ...] = ()
    """What each clip shows, all of them at once: digits, or their words; anything without."""
    num: int = 16
    """How many clips."""
    seed: int = 0
    """Each clip depends on it and on the clip's place, not on how many there are."""
    steps: int | None = None
    """Of the sampler: fewer are faster, more are finer; 1 or more."""
    guidance: float | None = None
    """How much more than likely a clip is to show what is asked for: 1 for none."""
    sampler: str | None = None
    """euler, or heun, which asks the network twice a step."""
    init: str | None = None
    """Path or address of a clip that is gone on with, or of one frame that begins to move."""
    frames: int | None = None
    """How long, in frames; any number. What the model sees at once without."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo generate")
    output_files.check_outputs(arguments.init or "", [arguments.out])
    task = _card(arguments.model).task
    if task != "generation":
        raise UserError(f"{arguments.model} is made for {task}; zoo generate takes a model for generation")

    from zoo.data import encode  # after the mistakes that can be told without waiting for JAX

    encode.check_format(arguments.out)
    clips, frame_rate = _drawn(arguments)
    with output_files.refusal_told(arguments.out):
        if arguments.out.suffix.lower() == ".png":
            encode.write_picture(arguments.out, encode.strips(clips), enlarge=1)
        else:
            grid = encode.grid(clips, columns=math.ceil(math.sqrt(len(clips))))
            encode.write_video(arguments.out, grid, frame_rate=frame_rate, enlarge=2)
    print(f"{len(clips)} clips of {clips.shape[1]} frames; wrote {arguments.out}", file=sys.stderr)


def _card(name: str) -> registry.ModelCard:
    """The model's card; of one that was never trained the error tells how to."""
    try:
        return registry.card(name)
    except UserError:
        from zoo import publish

        if name not in publish.cards():
            raise
        way_out = f"zoo train --model {name}, and then in a clone zoo publish RUN --name {name}"
        raise UserError(f"{name} is not trained yet; {way_out} makes it") from None


def _drawn(arguments: Arguments) -> tuple[Any, int]:
    """The clips, uint8 [num, frames, H, W, C], and how many frames of them are a second."""
    from rich.console import Console
    from rich.progress import Progress

    from zoo.predictor import load

    generator = load(arguments.model)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        drawing = bar.add_task(f"drawing {arguments.num} clips", total=1)
        clips = generator.generate(
            arguments.digits,
            num=arguments.num,
            seed=arguments.seed,
            steps=arguments.steps,
            guidance=arguments.guidance,
            sampler=arguments.sampler,
            init=arguments.init,
            frames=arguments.frames,
            progress=lambda share: bar.update(drawing, completed=share),
        )
    return clips, round(generator.preprocess.frame_rate)


if __name__ == "__main__":
    command_line.run("zoo generate", main)
