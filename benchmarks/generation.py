"""`python -m benchmarks.generation --model video_gen_moving_digits`: how good drawn clips of moving digits are.

Of a published model or of a run's folder, at several numbers of steps: how often they show the digits asked for (of all
clips, and of those asked for one alone), how smoothly they move, whether they are copies, how long a clip takes and,
with --fvd, which takes a third of a second a clip, how far they are from real ones. All seeds are fixed. The table goes
to benchmarks/results/<device>-generation.csv.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, track

from benchmarks import tables
from benchmarks.on_device import cpu_name
from zoo import command_line, publish
from zoo.configs import video_gen_moving_digits as experiment
from zoo.data import loader
from zoo.data.moving_digits import MovingDigits
from zoo.errors import UserError
from zoo.metrics.fvd import features, frechet_distance
from zoo.metrics.generated_clips import copied, jerk, nearest
from zoo.metrics.generated_digits import agreement, train_reader
from zoo.predictor import load
from zoo.registry import ModelCard, WeightSource
from zoo.tasks.generation import FlowMatching
from zoo.video_generator import VideoGenerator

KEY = ("model", "steps", "sampler", "guidance", "clips")
FIELDS = (
    *(*KEY, "agreement", "agreement_alone", "agreement_real", "jerk", "jerk_real", "copied"),
    *("fvd", "fvd_real", "fvd_shuffled", "fvd_ratio", "seconds_a_clip"),
)
_ALONE_AND_PAIRS = ({"max_digits": 1}, {"min_digits": 2})
_AT_ONCE = 256  # clips that are looked at


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures drawn clips of moving digits."""

    model: str = "video_gen_moving_digits"
    """A published model, or the folder of a run of its experiment."""
    steps: tuple[int, ...] = (4, 10, 50)
    """Of the sampler."""
    sampler: str | None = None
    """euler or heun; the card's without."""
    guidance: float | None = None
    """The card's without."""
    clips: int = 1024
    """How many are drawn, and are in each set that they are compared with."""
    fvd: bool = False
    """Measure Fréchet video distances as well."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.generation")
    if arguments.clips < 1:
        raise UserError(f"{arguments.clips} clips tell nothing; give 1 or more")
    generator = _generator(arguments.model)
    sampler = arguments.sampler or generator.preprocess.sampler
    guidance = generator.preprocess.guidance if arguments.guidance is None else arguments.guidance
    shape = (experiment.FRAMES, experiment.SIZE, experiment.SIZE, 1)
    for steps in arguments.steps:  # refuses now, not after the reader has been trained, what cannot be drawn
        FlowMatching(shape, num_steps=steps, sampler=sampler, guidance=guidance)
    real, asked, others = _real(arguments.clips)
    # Two digits are to be known as well as one.
    mixed: list[dict[str, Any]] = [{**experiment.DATA, "num_frames": 1} | part for part in _ALONE_AND_PAIRS]
    reader = train_reader([MovingDigits("train", **options) for options in mixed])
    seen = nearest(real, _training_clips())
    alone = asked.sum(axis=1) == 1
    known = {"agreement_real": _figure(agreement(reader(real), asked)), "jerk_real": _figure(jerk(real).mean())}
    file = tables.RESULTS / f"{tables.slug(cpu_name())}-generation.csv"
    for steps in arguments.steps:
        sampling = {"num_steps": steps, "sampler": sampler, "guidance": guidance}
        clips, seconds = _drawn(generator, asked, sampling)
        row = {
            **dict(zip(KEY, (Path(arguments.model).name, steps, sampler, guidance, len(clips)), strict=True)),
            "agreement": _figure(agreement(shown := reader(clips), asked)),
            "agreement_alone": _figure(agreement(shown[alone], asked[alone])),
            "jerk": _figure(jerk(clips).mean()),
            "copied": _figure(copied(nearest(clips, _training_clips()), seen)),
            "seconds_a_clip": _figure(seconds),
            **known,
            **(_distances(clips, real, others) if arguments.fvd else {}),
        }
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        table = tables.read(file, *KEY)
        table[tuple(str(row[name]) for name in KEY)] = row
        what = f"drawn clips of moving digits by the protocol of video_gen_moving_digits, on {cpu_name()}"
        tables.write(file, what, FIELDS, table.values())


def _generator(name: str) -> VideoGenerator:
    if not Path(name).is_dir():
        return load(name)
    config, model = publish.trained(Path(name))
    told = experiment.CARDS["video_gen_moving_digits"] | {"metrics": {}, "parameters": 0, "flops": 0}
    told["preprocessing"] = told["preprocessing"] | {"time_mean": config.task_options["time_mean"]}
    options = {"name": name, "arch": config.model, "options": config.options}
    return VideoGenerator(ModelCard(source=WeightSource("checkpoint", {}), **options, **told), model)


def _real(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """So many clips of the held-out split with their digits' counts, and as many others."""
    source = MovingDigits("test", **experiment.DATA)
    items = [source[index] for index in range(2 * count)]
    clips, counts = (np.stack([item[name] for item in items]) for name in ("video", "classes"))
    return clips[:count], counts[:count], clips[count:]


def _training_clips() -> Iterator[np.ndarray]:
    """All that the last part of training saw, many at a time."""
    config = experiment.PRESETS["finer"]
    source = MovingDigits("train", **config.dataset_options)
    parts = config.steps * config.batch_size // _AT_ONCE
    with contextlib.closing(loader.training_batches(source, _AT_ONCE, config.seed)) as batches:
        for batch in track(itertools.islice(batches, parts), "looking at what was learnt from", parts):
            yield batch["video"]


def _drawn(generator: VideoGenerator, asked: np.ndarray, sampling: dict[str, Any]) -> tuple[np.ndarray, float]:
    """A clip for each row of counts, and the seconds that one took once all was compiled."""
    generator.draw(asked[:8], seed=0, **sampling)
    begun = time.monotonic()
    with Progress() as bar:
        drawing = bar.add_task(f"drawing in {sampling['num_steps']} steps", total=1)
        clips = generator.draw(asked, seed=0, progress=lambda share: bar.update(drawing, completed=share), **sampling)
    return clips, (time.monotonic() - begun) / len(clips)


def _distances(clips: np.ndarray, real: np.ndarray, others: np.ndarray) -> dict[str, str]:
    """Fréchet video distances from other real clips, and where between real ones and such without order these lie."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(real.shape[1]), (len(real), 1)), axis=1)
    shuffled = np.take_along_axis(real, order[:, :, None, None, None], axis=1)
    theirs = features(others)
    drawn, same, worst = (frechet_distance(features(each), theirs) for each in (clips, real, shuffled))
    told = {"fvd": drawn, "fvd_real": same, "fvd_shuffled": worst, "fvd_ratio": (drawn - same) / (worst - same)}
    return {name: _figure(value) for name, value in told.items()}


def _figure(value: float) -> str:
    return f"{value:.4g}"


if __name__ == "__main__":
    command_line.run("python -m benchmarks.generation", main)
