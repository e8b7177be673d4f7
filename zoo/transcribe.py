"""`zoo transcribe FILE --format srt`: what is said in a video or a sound file, with times."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from zoo import command_line, output_files, registry
from zoo.errors import UserError

_ENGLISH = "en"
_TASKS = ("transcription", "speech commands")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes down what is said in a video or a sound file."""

    file: Annotated[str, Positional]
    """Path or address of the video or sound."""
    format: Literal["srt", "vtt", "txt", "json"] | None = None
    """Of what is written; that of --out without, else txt."""
    out: Path | None = None
    """Where it is written; on the screen without this, --mux and --burn."""
    mux: Path | None = None
    """The video with a track of subtitles that a player can switch on: .mp4, .mov or .mkv."""
    burn: Path | None = None
    """The video with the subtitles drawn into its pictures: .mp4, .mov, .mkv or .webm."""
    prompt: str = ""
    """Names and words that are to be expected, as text."""
    model: str = "whisper_tiny_en"
    """A published model for transcription or speech commands."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo transcribe")
    task = registry.card(arguments.model).task
    if task not in _TASKS:
        raise UserError(f"{arguments.model} is made for {task}; zoo transcribe takes a model for transcription")
    form = _format(arguments)
    output_files.check_outputs(arguments.file, [*filter(None, (arguments.out, arguments.mux, arguments.burn))])

    from rich.console import Console
    from rich.progress import Progress

    from zoo.data.sound import open_sound  # after the mistakes that can be told without waiting for JAX
    from zoo.data.video_writer import check_format
    from zoo.predictor import load
    from zoo.subtitled_video import burn, check_track, mux
    from zoo.subtitles import FORMATS
    from zoo.unfinished_transcript import UnfinishedTranscript

    if arguments.mux:
        check_track(arguments.mux)
    if arguments.burn:
        check_format(arguments.burn)

    segments, console = [], Console(stderr=True)
    with open_sound(arguments.file) as sound:
        transcriber = load(arguments.model)
        unfinished = UnfinishedTranscript(arguments.out, _what(arguments, sound)) if arguments.out else None
        begin = 0.0
        if unfinished and unfinished.until:
            segments, begin = unfinished.segments, unfinished.until
            print(f"going on after {begin:.0f} s, where an earlier run was stopped", file=sys.stderr)
        with Progress(console=console) as progress:
            bar = progress.add_task("listening", total=sound.duration or None)
            for seconds, found in transcriber.follow(sound, prompt=arguments.prompt, begin=begin):
                segments += found
                if unfinished:
                    unfinished.add(seconds, found)
                progress.update(bar, completed=seconds)
            progress.update(bar, completed=sound.duration)
        text = FORMATS[form](segments)
        if arguments.out and unfinished:
            output_files.write_text(arguments.out, text)
            unfinished.finished()
        elif not (arguments.mux or arguments.burn):
            sys.stdout.write(text)
        if arguments.mux:
            mux(arguments.file, segments, arguments.mux)
        if arguments.burn:
            with Progress(console=console) as progress:
                bar = progress.add_task("drawing", total=sound.duration or None)
                burn(arguments.file, segments, arguments.burn, lambda seconds: progress.update(bar, completed=seconds))
        _tell(arguments, segments)
        if sound.fault:
            raise UserError(f"{sound.fault}; what was said until then is written down")


def _what(arguments: Arguments, sound: Any) -> dict[str, object]:
    """What an unfinished transcript must be of for a run to go on with it."""
    size = os.path.getsize(arguments.file) if os.path.isfile(arguments.file) else None
    about_sound = {"file": arguments.file, "size": size, "duration": sound.duration}
    return {**about_sound, "model": arguments.model, "prompt": arguments.prompt}


def _format(arguments: Arguments) -> str:
    known = ("srt", "vtt", "txt", "json")
    suffix = arguments.out.suffix.lstrip(".").lower() if arguments.out else ""
    if arguments.format is None and arguments.out and suffix not in known:
        raise UserError(f"--out {arguments.out} names no format; end it in .srt, .vtt, .txt or .json, or give --format")
    return arguments.format or suffix or "txt"


def _tell(arguments: Arguments, segments: list) -> None:
    if not segments:
        print("nobody speaks there, as far as can be heard", file=sys.stderr)
    doubtful = sum(segment.doubtful for segment in segments)
    if doubtful:
        only = " It knows English only." if arguments.model.endswith(f"_{_ENGLISH}") else ""
        print(f"{arguments.model} is unsure of {doubtful} of {len(segments)} segments.{only}", file=sys.stderr)


if __name__ == "__main__":
    command_line.run("zoo transcribe", main)
