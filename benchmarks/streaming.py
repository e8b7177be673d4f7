"""`python -m benchmarks.streaming --model cnn_lstm_motion`: frames a second and how long a pushed frame takes.

On one processor and on all, in processes of their own. The table goes to benchmarks/results/<device>-streaming.csv.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np

from benchmarks import on_device, tables
from zoo import command_line

FIELDS = ("model", "processors", "frames", "frames a second", "p50 ms", "p99 ms", "longest ms", "growth MB")
_SIZE = (240, 320)
_FIRST = 64  # frames that compile and fill caches, and are not counted


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how fast a stream takes frames."""

    model: str = "cnn_lstm_motion"
    """A published model that streams."""
    frames: int = 10_000
    """How many are pushed and timed."""
    processors: int | None = None
    """On so many; without it on one and then on all."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.streaming")
    if arguments.processors:
        print(json.dumps(measured(arguments.model, arguments.frames, arguments.processors)))
        return
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-streaming.csv"
    table = tables.read(file, "model", "processors")
    for processors in sorted({1, len(os.sched_getaffinity(0))}):
        flags = {"model": arguments.model, "frames": arguments.frames, "processors": processors}
        words = [f"--{name}={value}" for name, value in flags.items()]
        command = [sys.executable, "-m", "benchmarks.streaming", *words]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        table[row["model"], row["processors"]] = row
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    tables.write(file, f"uint8 frames of 320x240, on {on_device.cpu_name()}", FIELDS, table.values())


def measured(name: str, frames: int, processors: int) -> dict[str, str]:
    """A row of the table."""
    os.sched_setaffinity(0, range(processors))  # before XLA makes its threads
    import zoo

    video = np.random.default_rng(0).integers(0, 256, (32, *_SIZE, 3), np.uint8)
    taken = []
    with zoo.load(name).stream() as stream:
        for index in range(_FIRST):
            stream.push(video[index % len(video)])
        before = _resident()
        for index in range(frames):
            start = time.perf_counter()
            stream.push(video[index % len(video)])
            taken.append(time.perf_counter() - start)
    half, most = 1e3 * np.percentile(taken, (50, 99))
    return {
        "model": name,
        "processors": str(processors),
        "frames": str(frames),
        "frames a second": f"{frames / sum(taken):.1f}",
        "p50 ms": f"{half:.2f}",
        "p99 ms": f"{most:.2f}",
        "longest ms": f"{1e3 * max(taken):.1f}",
        "growth MB": f"{(_resident() - before) / 2**20:.1f}",
    }


def _resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    command_line.run("python -m benchmarks.streaming", main)
