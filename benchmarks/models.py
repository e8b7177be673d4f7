"""`python -m benchmarks.models --against torch --torch-python PATH`: whole models on this CPU, ours and PyTorch's.

The same network, weights and input run in two processes, which take turns: ours, theirs, ours, theirs. Both give the
same output first, to 1e-3 of its largest value, and after a training step the same loss and parameters. PyTorch runs
as the fastest of eager or `torch.compile`, contiguous or channels last. The ratio is our time to theirs, below 1 where
we are faster: the median over all pairs of turns, with the distance between its quartiles, by its size, as spread.

GFLOP/s count the products of the plain network, so a Winograd convolution may go beyond the peak; a training step
counts three times. The peak is the fastest float32 product of two 2048x2048 matrices that either process makes just
before, with as many threads. Compiling is timed from nothing.

The table, `benchmarks/results/<CPU>-models.csv`, is kept after each row, and what it has is not measured again unless
`--again` says so.
"""

import dataclasses
import datetime
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import model_peers, tables
from benchmarks.model_pairs import PAIRS, inputs, weights
from benchmarks.model_peers import Peer, PeerError, peers
from benchmarks.on_device import cpu_name
from zoo import command_line
from zoo.errors import UserError
from zoo.registry import unknown

PASSES = ("inference", "training step")
FORMS = {
    f"{how} {layout}": {"compiled": how == "compiled", "channels_last": layout == "channels last"}
    for how in ("eager", "compiled")
    for layout in ("contiguous", "channels last")
}
FIELDS = (
    *(
        "model",
        "pass",
        "threads",
        "ours ms",
        "torch ms",
        "ratio",
        "spread",
        "torch form",
        "ours gflops",
        "torch gflops",
    ),
    *("peak gflops", "ours peak share", "torch peak share"),
    *("ours compile seconds", "torch compile seconds"),
    *("output error", "update error", "rounds", "input", "torch forms ms"),
)
UNSEEN = ("output error", "update error", "rounds", "input", "torch forms ms")  # in the file alone

OUTPUT_TOLERANCE = 1e-3
# Of all parameters' changes together. In float32 some activations fall on the other side of a ReLU's corner: I3D is off
# by 1.6e-2, or with PyTorch's channels last by 2.3e-2; in float64 MobileNetV2, off by 1.3e-2, agrees to 2e-13.
UPDATE_TOLERANCE = 5e-2
RATE = 1e-3  # of the training steps: enough to see each parameter's change, too little to leave the first's numbers
PEAK_SIZE = 2048
SCREENING = 3  # turns of each of PyTorch's forms, before the fastest runs against ours
TURN_SECONDS = 0.3  # of calls in one turn, or one call
PAUSE_SECONDS = 0.5  # between turns: threads of the other wait for work for a while, and take it from whoever has some


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times whole models against another framework on this CPU."""

    torch_python: str
    """The Python of an environment with torch and torchvision."""
    against: Literal["torch"] = "torch"
    """The other framework."""
    model: str = ",".join(PAIRS)
    """Models, with commas between."""
    passes: str = ",".join(PASSES)
    """What of them."""
    threads: str = "1,all"
    """With how many threads."""
    rounds: int = 15
    """Turns of each."""
    again: bool = False
    """Measure what the table has already, too."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.models")
    names, passes = arguments.model.split(","), arguments.passes.split(",")
    for kind, given, known in (("model", names, PAIRS), ("pass", passes, PASSES)):
        for name in given:
            if name not in known:
                raise unknown(kind, name, known)
    counts = _counts(arguments.threads)
    if arguments.rounds < 2:
        raise UserError(f"--rounds {arguments.rounds} has no spread; give at least 2")
    file = tables.RESULTS / f"{tables.slug(cpu_name())}-models.csv"
    with tempfile.TemporaryDirectory() as folder, peers(arguments.torch_python, counts[0], Path(folder)) as both:
        versions = both[2]
    ready(file, versions)
    console = Console(width=200)
    keys = list(itertools.product(names, passes, map(str, counts)))
    for key in keys:
        if key in read(file) and not arguments.again:
            continue
        name, part, threads = key
        with (
            console.status(", ".join(key)),
            tempfile.TemporaryDirectory() as folder,
            peers(arguments.torch_python, int(threads), Path(folder) / "compiled") as (ours, theirs, _),
        ):
            cells = measure(name, part, ours, theirs, arguments.rounds, Path(folder))
        write(file, versions, {"model": name, "pass": part, "threads": threads, **cells})
    show(console, file, keys)


def _counts(text: str) -> list[int]:
    """Numbers of threads, each once, in the order given."""
    there = len(model_peers.processors())
    counts = []
    for word in text.split(","):
        count = there if word == "all" else int(word) if word.isdigit() else 0
        if not 1 <= count <= there:
            raise UserError(f"--threads {word!r} is neither all nor a number from 1 to {there}, the processors here")
        counts.append(count)
    return list(dict.fromkeys(counts))


def ready(file: Path, versions: Mapping[str, str]) -> None:
    """Sees that what a table has already is of the same versions.

    Raises:
      UserError: it is of others, whose figures do not belong in one table with new ones.
    """
    if file.exists():
        first = file.read_text().partition("\n")[0]
        if _written(versions) not in first.split("; "):
            raise UserError(f"{file.name} says {first!r}, here are {_written(versions)}; move it away to measure anew")


def _written(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def read(file: Path) -> dict[tuple[str, ...], dict[str, str]]:
    return tables.read(file, "model", "pass", "threads")


def write(file: Path, versions: Mapping[str, str], row: Mapping[str, str]) -> None:
    """The table with this row in it, in place of the file that was there."""
    table = read(file) | {(row["model"], row["pass"], row["threads"]): dict(row)}
    models = list(PAIRS)
    ordered = sorted(table, key=lambda key: (models.index(key[0]), PASSES.index(key[1]), int(key[2])))
    what = f"medians of rounds in turn, float32, on {cpu_name()} ({os.cpu_count()} cores)"
    first = f"{what}; {_written(versions)}; {datetime.date.today().isoformat()}"
    tables.write(file, first, FIELDS, (table[key] for key in ordered))


def measure(name: str, part: str, ours: Peer, theirs: Peer, rounds: int, folder: Path) -> dict[str, str]:
    """The cells of one row.

    Raises:
      ArithmeticError: the two do not compute the same.
      UserError: torch.compile did not run.
    """
    pair, training = PAIRS[name], part != "inference"
    peak = max(peer.ask("peak", size=PEAK_SIZE)["gflops"] for peer in (ours, theirs))
    np.savez(folder / "weights.npz", **weights(theirs.ask("shapes", model=name)))  # pyright: ignore[reportArgumentType]
    np.savez(folder / "inputs.npz", **inputs(pair))  # pyright: ignore[reportArgumentType]
    same: dict[str, Any] = {"model": name, "training": training, "rate": RATE}
    same |= {key: str(folder / f"{key}.npz") for key in ("weights", "inputs")}
    loaded = ours.ask("load", form="ours", result=str(folder / "ours.npz"), **same)
    errors, compiling, times = [], {}, {}
    for form, options in FORMS.items():
        result = folder / "theirs.npz"
        try:
            compiling[form] = theirs.ask("load", form=form, result=str(result), **same, **options)["compile_seconds"]
            times[form] = [_turn(theirs, form)]
        except PeerError as error:
            if not options["compiled"]:
                raise
            raise UserError(f"torch.compile did not run for {name}, {part}, {form}: {error}") from error
        errors.append(_errors(ours, name, folder, training=training))
        _check(f"{name}, {part}, PyTorch {form}", *errors[-1])
    for form in list(FORMS) * (SCREENING - 1):
        times[form].append(_turn(theirs, form))
    first = {form: min(taken) for form, taken in times.items()}
    best = min(first, key=first.__getitem__)
    pairs = [(_turn(ours, "ours"), _turn(theirs, best)) for _ in range(rounds)]
    ratios = [our / their for our, their in pairs]
    quarter, ratio, three = statistics.quantiles(ratios, n=4)
    our, their = (statistics.median(times) for times in zip(*pairs, strict=True))
    output, update = (max(each) for each in zip(*errors, strict=True))
    cells = {"rounds": str(rounds), "input": " ".join("x".join(map(str, shape)) for shape in pair.shapes)}
    cells |= {"ratio": f"{ratio:.3f}", "spread": f"{(three - quarter) / ratio:.3f}", "peak gflops": f"{peak:.1f}"}
    cells |= {"torch form": best, "torch forms ms": "; ".join(f"{form} {first[form]:.2f}" for form in FORMS)}
    for side, taken, seconds in (("ours", our, loaded["compile_seconds"]), ("torch", their, compiling[best])):
        gflops = loaded["flops"] / taken / 1e6
        cells |= {f"{side} ms": f"{taken:.2f}", f"{side} gflops": f"{gflops:.1f}"}
        cells |= {f"{side} peak share": f"{gflops / peak:.2f}", f"{side} compile seconds": f"{seconds:.1f}"}
    return cells | {"output error": f"{output:.1e}", "update error": f"{update:.1e}" if training else ""}


def _turn(peer: Peer, form: str) -> float:
    """Milliseconds of a call, as a median of those in one turn."""
    time.sleep(PAUSE_SECONDS)
    return statistics.median(peer.ask("turn", form=form, seconds=TURN_SECONDS)["milliseconds"])


def _errors(ours: Peer, name: str, folder: Path, *, training: bool) -> tuple[float, float]:
    """How far the output, or the loss, is off, of its largest value; and all parameters' changes, of their size."""
    with np.load(folder / "ours.npz") as mine, np.load(folder / "theirs.npz") as others:
        key = "loss" if training else "output"
        output = float(np.abs(mine[key] - others[key]).max() / np.abs(others[key]).max())
    if not training:
        return output, 0.0
    for key, source in (("before", "weights"), ("after", "theirs")):
        ours.ask("updated", model=name, weights=str(folder / f"{source}.npz"), result=str(folder / f"{key}.npz"))
    with (
        np.load(folder / "ours.npz") as mine,
        np.load(folder / "before.npz") as before,
        np.load(folder / "after.npz") as after,
    ):
        off = sum(float(np.square(mine[key] - after[key], dtype=np.float64).sum()) for key in before)
        size = sum(float(np.square(after[key] - before[key], dtype=np.float64).sum()) for key in before)
    return output, float(np.sqrt(off / size)) if size else float("nan")


def _check(what: str, output: float, update: float) -> None:
    for name, error, tolerance in (("output", output, OUTPUT_TOLERANCE), ("update", update, UPDATE_TOLERANCE)):
        if not error <= tolerance:
            raise ArithmeticError(f"{what}: the {name} is off by {error:.2g}, more than {tolerance}")


def show(console: Console, file: Path, keys: Sequence[tuple[str, ...]]) -> None:
    """These rows on the screen."""
    kept = read(file)
    shown = [field for field in FIELDS if field not in UNSEEN]
    table = Table(title=file.read_text().partition("\n")[0].strip("# "), title_justify="left", box=None)
    for field in shown:
        table.add_column(field, justify="left" if field in ("model", "pass", "torch form") else "right")
    for key in keys:
        table.add_row(*(kept[key][field] for field in shown))
    console.print(table)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.models", main)
