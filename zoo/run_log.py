"""What a training run leaves for people to look at: a progress bar, metrics.jsonl, TensorBoard scalars, curves.png."""

import contextlib
import errno
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress
import tensorboardX

from zoo.errors import UserError


def open_log(folder: Path, first_step: int, total_steps: int) -> "RunLog | SilentLog":
    """The run's log in the first process, and one that keeps silent in the others."""
    return SilentLog() if jax.process_index() else RunLog(folder, first_step, total_steps)


class SilentLog(contextlib.AbstractContextManager):
    """The log of a process beside the first, which has the same to tell."""

    def __exit__(self, *exception) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def write(self, step: int, kind: str, figures: dict[str, float]) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class RunLog:
    """Writes a run's figures under `folder`. Use as a context manager.

    A resumed run starts at `first_step`: figures of later steps, written after the checkpoint that it resumes from, are
    dropped, so that every step is told once.
    """

    def __init__(self, folder: Path, first_step: int, total_steps: int):
        self.folder = folder
        self.first_step, self.total_steps = first_step, total_steps
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] <= first_step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        temporary.replace(self.path)
        self.progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            rich.progress.TextColumn("{task.fields[figures]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=False),
            console=rich.console.Console(stderr=True),
        )

    def __enter__(self) -> "RunLog":
        self.lines = self.path.open("a", encoding="utf-8")
        self.tensorboard = tensorboardX.SummaryWriter(str(self.folder), purge_step=self.first_step + 1)
        self.progress.start()
        self.bar = self.progress.add_task("compiling", total=self.total_steps, completed=self.first_step, figures="")
        return self

    def __exit__(self, *exception) -> None:
        self.progress.stop()
        self.tensorboard.close()
        self.lines.close()

    def advance(self, step: int) -> None:
        self.progress.update(self.bar, completed=step, description="training")

    def write(self, step: int, kind: str, figures: dict[str, float]) -> None:
        """Records figures of one kind ("train", "test" or "speed") at a step."""
        self.lines.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self.lines.flush()
        for name, value in figures.items():
            self.tensorboard.add_scalar(f"{kind}/{name}", value, step)
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if kind == "train":
            self.progress.update(self.bar, figures=told)
        elif kind == "test":
            self.say(f"step {step}: {kind} {told}")

    def say(self, line: str) -> None:
        """One line above the progress bar."""
        self.progress.console.print(line, highlight=False, soft_wrap=True, markup=False)


def read_metrics(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a last line that a crash cut short; none if there is no file."""

    def rows() -> Iterator[dict]:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    return list(rows())


def last_row(folder: Path, kind: str) -> dict[str, Any]:
    """The last figures of a kind; none if there are none."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == kind]
    return rows[-1] if rows else {}


@contextlib.contextmanager
def told_plainly(folder: Path) -> Iterator[None]:
    """Context in which a folder that cannot be written, or is full, is a UserError."""
    try:
        yield
    except OSError as error:
        is_here = error.filename is None or folder in Path(error.filename).parents
        if not is_here or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        raise UserError(f"cannot write to {folder}: {error.strerror}; the last good checkpoint stays") from error


def best_evaluation(folder: Path, patience: int) -> tuple[int, bool]:
    """The step of the smallest test loss so far, and whether `patience` evaluations came after it."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "test"]
    best = min(range(len(rows)), key=lambda number: rows[number]["loss"])
    return rows[best]["step"], len(rows) - 1 - best >= patience


def draw_curves(folder: Path) -> Path:
    """Draws every figure of training and test over the steps into curves.png, both in one panel."""
    from matplotlib.figure import Figure

    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] != "speed"]
    names = sorted({name for row in rows for name in row} - {"step", "kind"})
    columns = min(3, max(1, len(names)))
    lines = max(1, math.ceil(len(names) / columns))
    figure = Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for panel, name in zip(panels, names, strict=False):
        for kind, style in (("train", {}), ("test", {"marker": "o"})):
            points = [(row["step"], row[name]) for row in rows if row["kind"] == kind and name in row]
            if points:
                panel.plot(*zip(*points, strict=True), label=kind, **style)
        panel.set_title(name)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.legend()
    path = folder / "curves.png"
    temporary = folder / "curves.tmp.png"
    figure.savefig(temporary, dpi=100)
    temporary.replace(path)
    return path
