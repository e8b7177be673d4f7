"""The generator on 16 frames of 64x64: one or two digits like MNIST's, by class and from first frames.

python -m zoo.train --model video_gen_moving_digits

Sized for an hour or so on two CPU cores. Not trained yet.

The digits are those of Moving MNIST's protocol here, 28x28, which move by 1 to 3 pixels a step; three clips of four
have one of them and one has two. `benchmarks.generation` measures what the card claims.
"""

from typing import Any

from zoo.configs import TrainConfig
from zoo.data.moving_digits import MOVING_MNIST

FRAMES, SIZE = 16, 64

DATA = {**MOVING_MNIST, "num_frames": FRAMES, "size": SIZE, "min_digits": 1, "speed": (1.0, 3.0)}
"""The arguments of `moving_digits`: its split "train" to learn from, "test" to measure by."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TIME_MEAN = -2.0
"""Below video_gen's -1.4: four times the pixels and twice the frames tell what a clip shows through more noise."""

_STEPS, _BATCH = 5000, 8


def _preset(model: str, options: dict[str, Any], time_mean: float = TIME_MEAN, **changes: Any) -> TrainConfig:
    return TrainConfig(
        model=model,
        options=options,
        task="generation",
        task_options={"clip_shape": (FRAMES, SIZE, SIZE, 1), "time_mean": time_mean, "know_frames": 0.2},
        dataset="moving_digits",
        dataset_options=DATA,
        optimizer="muon",
        learning_rate=0.01,
        steps=_STEPS,
        batch_size=_BATCH,
        ema_decay=0.998,
        evaluate_every=500,
        checkpoint_every=100,
        **changes,
    )


PRESETS = {
    "default": _preset("video_gen", {"patch": 4, "widths": (64, 128, 256), "halve_time": True}),
    "transformer": _preset("video_dit", {}),
    "latents": _preset(
        "latent_video_gen", {"deviation": 0.72}, time_mean=-1.0, start={"codec": "video_vae_moving_digits"}, freeze="codec"
    ),
}

CARDS = {
    "video_gen_moving_digits": {
        "task": "generation",
        "description": "Draws handwritten digits that move, by class, and goes on with clips of such.",
        "labels": WORDS,
        "preprocessing": {
            "num_frames": FRAMES,
            "size": SIZE,
            "frame_rate": 10.0,
            "known_frames": FRAMES // 2,
            "time_mean": TIME_MEAN,
            "steps": 10,
            "sampler": "heun",
            "guidance": 2.5,
        },
        "licence": "Code and weights Apache-2.0 (this project). Digits: OpenCV's documentation, Apache-2.0.",
        "attribution": "Trained by this project on the 5,000 handwritten digits of OpenCV's documentation.",
        "protocol": (
            "1,024 clips drawn with seed 0 as the card says, asked for the digits of the first 1,024 clips of the test "
            "split, whose digits are held out. agreement: a classifier trained on the train split finds all digits "
            "that were asked for and no other. fvd_ratio: (model - real) / (shuffled - real), each FVD against the "
            "next 1,024 clips of the test split: of the drawn clips, of the first 1,024, and of these with the frames "
            f"of each in random order. Trained on {_STEPS * _BATCH:,} clips."
        ),
    }
}
