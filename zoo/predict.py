"""`zoo predict FILE --model M`: the likeliest labels of a video, or with --stream those of each moment as it comes."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from zoo import command_line, output_files, registry
from zoo.errors import UserError

_MODEL, _STREAM_MODEL = "i3d_kinetics400", "cnn_lstm_kinetics"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Names what happens in a video."""

    file: Annotated[str, Positional]
    """Path or address of the video; with --stream also a camera (/dev/video0) or rtsp://..."""
    model: str | None = None
    """A published classifier: see `zoo list`. i3d_kinetics400, or cnn_lstm_kinetics with --stream."""
    top: int = 5
    """How many labels to tell."""
    json: bool = False
    """Print one JSON object, with --stream one a line, and nothing else on stdout."""
    stream: bool = False
    """Read frame by frame, tell every second what was seen so far, and draw it over time."""
    windows: bool = False
    """Tell what each stretch of a long video shows, and draw it over time."""
    timeline: Path | None = None
    """Where --stream or --windows draws it: <name>-timeline.png without."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo predict")
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} asks for no label; give 1 or more")
    if arguments.timeline and not (arguments.stream or arguments.windows):
        raise UserError("--timeline is drawn with --stream or --windows")
    if arguments.stream and arguments.windows:
        raise UserError("--stream and --windows are two ways of looking; choose one")
    arguments = dataclasses.replace(arguments, model=arguments.model or (_STREAM_MODEL if arguments.stream else _MODEL))
    task = registry.card(str(arguments.model)).task
    if task != "classification":
        raise UserError(f"{arguments.model} is made for {task}; zoo predict takes a model for classification")

    from zoo.predictor import load  # after the mistakes that can be told without waiting for JAX

    predictor = load(str(arguments.model))
    if arguments.stream:
        _follow(arguments, predictor)
        return
    if arguments.windows:
        _tell_windows(arguments, predictor)
        return
    answers = predictor(arguments.file)[: arguments.top]
    if arguments.json:
        _print_json(arguments, answers)
    else:
        _print_table(arguments, answers)


def _tell_windows(arguments: Arguments, predictor: Any) -> None:
    times, answers = [], []
    for seconds, shares in predictor.windows(arguments.file):
        best = sorted(zip(predictor.labels, shares.tolist(), strict=True), key=lambda answer: -answer[1])
        times.append(seconds)
        answers.append(best[: arguments.top])
        _tell(arguments, seconds, answers[-1])
    _draw(arguments, times, answers)


def _draw(arguments: Arguments, times: list[float], answers: list[Any]) -> None:
    import sys

    from zoo import timeline

    path = arguments.timeline or output_files.free(Path(Path(arguments.file).stem + "-timeline.png"))
    path = timeline.draw(times, answers, f"{arguments.file}, by {arguments.model}", path)
    print(f"wrote {path}", file=sys.stderr)


def _follow(arguments: Arguments, predictor: Any) -> None:
    """Pushes frame after frame, and tells once a second of the video, and at the end, what was seen so far."""
    import sys

    times, answers, told, seconds, answer = [], [], -1.0, 0.0, []
    begun = time.monotonic()
    with predictor.stream() as stream, _frames(arguments.file, stream.frame_rate) as frames:
        try:
            for seconds, frame in frames:
                answer = stream.push(frame)[: arguments.top]
                if answer:
                    times.append(seconds)
                    answers.append(answer)
                if answer and seconds >= told + 1:
                    _tell(arguments, seconds, answer)
                    told = seconds
        except KeyboardInterrupt:  # how one leaves a camera
            print("stopped", file=sys.stderr)
        if stream.frames:
            answer = stream.finish()[: arguments.top]
            times.append(seconds)
            answers.append(answer)
            _tell(arguments, seconds, answer)
        rate = stream.frames / (time.monotonic() - begun)
        print(f"{stream.frames} frames, {rate:.1f} a second, {frames.dropped()} dropped", file=sys.stderr)
    if answers:
        _draw(arguments, times, answers)


@dataclasses.dataclass(frozen=True)
class _Frames:
    """Frames at the model's rate, and how many the source had to drop."""

    items: Iterator[tuple[float, Any]]
    source: Any

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        return self.items

    def dropped(self) -> int:
        return getattr(self.source, "dropped", 0)


@contextlib.contextmanager
def _frames(source: str, frame_rate: float) -> Iterator[_Frames]:
    from zoo.data.decode import open_video
    from zoo.data.live import LiveReader, is_live
    from zoo.data.sampling import at_rate

    with LiveReader(source) if is_live(source) else open_video(source) as reader:
        yield _Frames(at_rate(reader.frames(), frame_rate), reader)


def _tell(arguments: Arguments, seconds: float, answer: list[tuple[str, float]]) -> None:
    import json

    if arguments.json:
        labels = [{"label": label, "probability": probability} for label, probability in answer]
        print(json.dumps({"seconds": round(seconds, 3), "predictions": labels}, ensure_ascii=False), flush=True)
    else:
        print(f"{seconds:8.1f} s  " + "  ".join(f"{label} {share:.2f}" for label, share in answer[:3]), flush=True)


def _print_json(arguments: Arguments, answers: list[tuple[str, float]]) -> None:
    import json

    predictions = [{"label": label, "probability": probability} for label, probability in answers]
    print(
        json.dumps({"file": arguments.file, "model": arguments.model, "predictions": predictions}, ensure_ascii=False)
    )


def _print_table(arguments: Arguments, answers: list[tuple[str, float]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{arguments.file}, by {arguments.model}"), title_justify="left")
    table.add_column("label")
    table.add_column("probability", justify="right")
    for label, probability in answers:
        table.add_row(escape(label), f"{probability:.3f}")
    Console().print(table)


if __name__ == "__main__":
    command_line.run("zoo predict", main)
