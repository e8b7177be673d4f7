"""The flow-matching generator on moving digits.

    python -m zoo.train --model video_gen
    python -m zoo.train --model video_gen --preset full
"""

from zoo.configs import TrainConfig


def _moving_digits(num_frames: int, size: int, **changes) -> TrainConfig:
    return TrainConfig(
        model="video_gen",
        task="generation",
        dataset="moving_digits",
        task_options={"clip_shape": (num_frames, size, size, 1)},
        dataset_options={"num_frames": num_frames, "size": size},
        optimizer="muon",
        batch_size=16,
        **changes,
    )


PRESETS = {
    "default": _moving_digits(8, 32, steps=420, learning_rate=0.01, options={"patch": 4, "widths": (128, 192)}),
    "full": _moving_digits(16, 64, steps=20_000, learning_rate=0.01, evaluate_every=1000, checkpoint_every=1000),
}
