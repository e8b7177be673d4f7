"""The flow-matching generator on moving digits.

python -m zoo.train --model video_gen
python -m zoo.train --model video_gen --preset full
python -m zoo.train --model video_gen --preset clips --dataset folder:DIR

The default takes 5 min 33 s on two cores of an Intel Xeon, the environment included, and ends at a test loss of 0.107.
Most single digits are recognised at once, some turn into others, and two that overlap are often not. `full` is for an
accelerator and was not run. `clips` learns from videos of one's own, in colour, by the names of their class folders.

Seen on the way: noise levels drawn around sigmoid(-0.6) gave clips that move smoothly but turn from one digit into
another, those around sigmoid(-1.4), all else equal, mostly keep their digit.
"""

from zoo.configs import TrainConfig
from zoo.configs.convlstm_moving_digits import SEES


def _moving_digits(num_frames: int, size: int, **changes) -> TrainConfig:
    return TrainConfig(
        model="video_gen",
        task="generation",
        task_options={"clip_shape": (num_frames, size, size, 1)},
        dataset="moving_digits",
        dataset_options={"num_frames": num_frames, "size": size},
        optimizer="muon",
        learning_rate=0.01,
        **changes,
    )


PRESETS = {
    "default": _moving_digits(
        8, 32, steps=750, batch_size=8, ema_decay=0.995, evaluate_every=375, evaluation_items=128
    ),
    "full": _moving_digits(
        16,
        64,
        options={"widths": (128, 256, 512)},
        steps=20_000,
        batch_size=64,
        ema_decay=0.999,
        evaluate_every=1000,
        checkpoint_every=1000,
    ),
    "clips": TrainConfig(
        model="video_gen",
        options={"channels": 3, "widths": (64, 128, 256), "halve_time": True},
        task="generation",
        task_options={"clip_shape": (16, 64, 64, 3), "time_mean": -2.0, "know_frames": 0.2},
        dataset="folder:clips",
        dataset_options={"preprocessing": SEES | {"num_frames": 16}},
        optimizer="muon",
        learning_rate=0.01,
        steps=5000,
        batch_size=8,
        ema_decay=0.998,
        evaluate_every=500,
    ),
}
