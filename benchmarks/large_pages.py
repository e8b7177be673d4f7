"""`python -m benchmarks.large_pages`: what memory in large pages is worth on this CPU (`zoo.huge_pages`).

The same program runs in two processes, one with the kernel's pages of 4 KiB and one that asks for pages of 2 MiB, which
take turns of many calls: the first calls of a turn tell of memory that the other process had until then. The ratio is
the time with large pages to that with small ones: the median over all pairs of turns, with the distance between its
quartiles, by its size, as spread. The table, `benchmarks/results/<CPU>-large-pages.csv`, is kept after each row.
"""

import contextlib
import dataclasses
import itertools
import statistics
import tempfile
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from benchmarks import tables
from benchmarks.model_pairs import PAIRS, inputs
from benchmarks.model_peers import OURS, Peer
from benchmarks.models import PASSES, RATE
from benchmarks.on_device import cpu_name
from zoo import command_line
from zoo.huge_pages import LARGE, SETTING
from zoo.registry import unknown

FIELDS = ("model", "pass", "small pages ms", "large pages ms", "ratio", "spread", "rounds", "seconds a turn")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times networks on this CPU with memory in small pages and in large ones."""

    model: str = ",".join(PAIRS)
    """Models, with commas between."""
    passes: str = ",".join(PASSES)
    """What of them."""
    rounds: int = 5
    """Turns of each."""
    seconds: float = 15.0
    """Of each turn; a short one tells of memory that the other process had until then."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.large_pages")
    names, passes = arguments.model.split(","), arguments.passes.split(",")
    for kind, given, known in (("model", names, PAIRS), ("pass", passes, PASSES)):
        for name in given:
            if name not in known:
                raise unknown(kind, name, known)
    file = tables.RESULTS / f"{tables.slug(cpu_name())}-large-pages.csv"
    for name, part in itertools.product(names, passes):
        with Console(stderr=True).status(f"{name}, {part}"):
            row = measured(name, part, arguments.rounds, arguments.seconds)
        print("  ".join(f"{field} {value}" for field, value in row.items()), flush=True)
        table = tables.read(file, "model", "pass")
        table[name, part] = row
        what = f"memory in pages of 4 KiB and of 2 MiB, medians of rounds in turn, float32, jax {jax.__version__}"
        tables.write(file, f"{what}, on {cpu_name()}", FIELDS, table.values())


def measured(name: str, part: str, rounds: int, seconds: float) -> dict[str, str]:
    """The cells of one row."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "inputs.npz"
        np.savez(file, **inputs(PAIRS[name]))  # pyright: ignore[reportArgumentType]
        sides = []
        for pages in ("", LARGE):
            side = Peer("our process", OURS, {"JAX_PLATFORMS": "cpu", SETTING: pages})
            stack.callback(side.close)
            program = {"form": "ours", "model": name, "training": part != "inference", "rate": RATE}
            side.ask("load", inputs=str(file), result=str(Path(folder) / "output.npz"), **program)
            sides.append(side)
        small, large = sides
        pairs = [(_turn(small, seconds), _turn(large, seconds)) for _ in range(rounds)]
    ratios = [after / before for before, after in pairs]
    quarter, ratio, three = statistics.quantiles(ratios, n=4)
    before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
    figures = (
        f"{before:.1f}",
        f"{after:.1f}",
        f"{ratio:.3f}",
        f"{(three - quarter) / ratio:.3f}",
        str(rounds),
        f"{seconds:g}",
    )
    return dict(zip(FIELDS, (name, part, *figures), strict=True))


def _turn(side: Peer, seconds: float) -> float:
    """Milliseconds of a call, as a median of those in one turn."""
    return statistics.median(side.ask("turn", form="ours", seconds=seconds)["milliseconds"])


if __name__ == "__main__":
    command_line.run("python -m benchmarks.large_pages", main)
