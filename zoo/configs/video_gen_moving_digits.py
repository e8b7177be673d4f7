"""The generator on 16 frames of 64x64: one or two digits, by class and from first frames.

python -m zoo.train --model video_gen_moving_digits

4,000 steps take 36 minutes on two cores of an Intel Xeon; `--preset further` goes on with what is published, 7,000
steps in 103 minutes on one core of an AMD EPYC, and so does `--preset finer`, 3,000 steps in an hour, with more of the
times when little noise is left. docs/video_generation.md says how good it is and what was tried before: pixels, other
digits, other latents. What is published was learnt in these three parts, the first of them with two digits in one clip
of four, and first frames known in one of five, of these only one in ten without its classes. The default preset has
the second part's data, with which it has not been run from nothing.

The digits are scikit-learn's, in a box of 32x32, which move by 1 to 3 pixels a step. `benchmarks.generation` measures
what the card claims.
"""

import dataclasses
from typing import Any

from zoo.configs import TrainConfig

FRAMES, SIZE = 16, 64

DATA: dict[str, Any] = {"num_frames": FRAMES, "size": SIZE, "max_digits": 2}
"""The arguments of `moving_digits` whose split "test" the figures are about: three clips of four have one digit."""

LEARNT = DATA | {"fewer_likelier": False}
"""What is learnt from: half of the clips have two digits, which are harder to draw than one."""

DEVIATION = 0.74
"""The root of the mean square of video_vae_moving_digits' latents."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TIME_MEANS = {"latents": -1.5, "pixels": -2.0}
"""Of pixels below video_gen's -1.4: four times as many and twice the frames tell what is shown through more noise."""

FINE_TIME_MEAN = -0.6
"""For the last part of training, which is about shapes and not about what is shown; and for drawing."""

_STEPS, _FURTHER_STEPS, _FINER_STEPS, _BATCH = 4000, 7000, 3000, 8


def _preset(model: str, options: dict[str, Any], of: str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        model=model,
        options=options,
        task="generation",
        task_options={"clip_shape": (FRAMES, SIZE, SIZE, 1), "time_mean": TIME_MEANS[of], "know_frames": 0.25},
        dataset="moving_digits",
        dataset_options=LEARNT,
        optimizer="muon",
        learning_rate=0.01,
        steps=_STEPS,
        batch_size=_BATCH,
        ema_decay=0.998,
        evaluate_every=500,
        checkpoint_every=100,
        **changes,
    )


def _on_latents(denoiser: str, **denoiser_options: Any) -> TrainConfig:
    options = {"deviation": DEVIATION, "denoiser": denoiser, "denoiser_options": denoiser_options}
    start = {"codec": "video_vae_moving_digits"}
    return _preset("latent_video_gen", options, "latents", start=start, freeze="codec")


_DEFAULT = _on_latents("video_gen", widths=(128, 256))

PRESETS = {
    "default": _DEFAULT,
    # What is published, learnt further.
    "further": dataclasses.replace(
        _DEFAULT, start={"": "video_gen_moving_digits"}, steps=_FURTHER_STEPS, learning_rate=0.008
    ),
    "finer": dataclasses.replace(
        _DEFAULT,
        start={"": "video_gen_moving_digits"},
        task_options=_DEFAULT.task_options | {"time_mean": FINE_TIME_MEAN},
        dataset_options=DATA,
        steps=_FINER_STEPS,
        learning_rate=0.006,
    ),
    "latents_transformer": _on_latents("video_dit", features=192, num_blocks=6),
    "pixels": _preset("video_gen", {"patch": 8, "widths": (128, 256)}, "pixels"),
    "pixels_transformer": _preset("video_dit", {}, "pixels"),
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
            "most_classes": DATA["max_digits"],
            "layered": True,
            "time_mean": FINE_TIME_MEAN,
            "steps": 10,
            "sampler": "heun",
            "guidance": 3.0,
        },
        "metrics": {"agreement": 0.9756, "agreement_alone": 0.9921, "fvd_ratio": 0.1512, "copied": 0.0},
        "licence": "Code and weights Apache-2.0 (this project). Digits: UCI Optical Recognition, CC BY 4.0.",
        "attribution": "Trained by this project on scikit-learn's handwritten digits (Alpaydin and Kaynak, UCI).",
        "protocol": (
            "1,024 clips drawn with seed 0 as the card says, asked for the digits of the first 1,024 clips of the test "
            "split, whose digits are held out; two digits are drawn apart and laid over each other, the brightest "
            "showing. agreement: a classifier trained on the train split finds all digits "
            "that were asked for and no other; agreement_alone: of the clips that were asked for one. fvd_ratio: "
            "(model - real) / (shuffled - real), each FVD against the next 1,024 clips of the test split: of the drawn "
            "clips, of the first 1,024, and of these with the frames of each in random order. Trained on "
            f"{_STEPS * _BATCH:,} clips, one of four with two digits, on {_FURTHER_STEPS * _BATCH:,}, half of them "
            f"with two, and on {_FINER_STEPS * _BATCH:,}, one of four with two. copied: nearer to one of the last than "
            "99 of 100 real clips are."
        ),
    }
}
