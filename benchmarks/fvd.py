"""`python -m benchmarks.fvd`: what noise, lost frames and reversal do to Fréchet and kernel video distance.

Of moving digits against a disjoint set of such; more of a harm should raise both. I3D looks at eight times as many
clips as there are in a set, about a second each on 2 cores. The table goes to benchmarks/results/fvd.csv.
"""

import dataclasses
import warnings
from typing import Any

import numpy as np

from benchmarks import tables
from zoo import command_line
from zoo.data.moving_digits import MOVING_MNIST, MovingDigits
from zoo.metrics.fvd import features, frechet_distance, kernel_distance

FILE = tables.RESULTS / "fvd.csv"
FIELDS = ("harm", "amount", "clips a side", "fvd", "kvd")
_FRAMES = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how two sets of clips grow apart as one is harmed."""

    clips: int = 1024
    """In each set."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.fvd")
    options: dict[str, Any] = {**MOVING_MNIST, "num_frames": _FRAMES}
    source = MovingDigits("train", **options)
    clips = np.stack([source[index]["video"] for index in range(2 * arguments.clips)])
    ours, theirs = clips[::2], features(clips[1::2])
    rows = []
    for (harm, amount), harmed in harms(ours).items():
        found = features(harmed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number of clips stands in the table
            distances = frechet_distance(found, theirs), kernel_distance(found, theirs)
        figures = dict(zip(("fvd", "kvd"), (f"{distance:.4f}" for distance in distances), strict=True))
        rows.append({"harm": harm, "amount": amount, "clips a side": len(ours), **figures})
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    tables.write(FILE, f"moving digits of {_FRAMES}x64x64 against a disjoint set", FIELDS, rows)


def harms(clips: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """uint8 [N, T, H, W, C] as they are, and harmed a little and much in each way."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=clips.shape).astype(np.float32)
    made = {("none", ""): clips}
    for deviation in (0.05, 0.2):
        noisy = clips + 255 * deviation * noise
        made["noise", f"{deviation} of white"] = noisy.clip(0, 255).round().astype(np.uint8)
    for every in (4, 2):
        stays = np.arange(clips.shape[1])
        stays[every - 1 :: every] -= 1
        made["lost frames", f"every {every}th is the one before"] = clips[:, stays]
    for count in (4, 8):
        turned = clips.copy()
        turned[:, -count:] = clips[:, : -count - 1 : -1]
        made["reversal", f"of the last {count} frames"] = turned
    return made


if __name__ == "__main__":
    command_line.run("python -m benchmarks.fvd", main)
