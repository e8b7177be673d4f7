"""The generator on 16 frames of 64x64: one or two digits like MNIST's, by class and from first frames.

python -m zoo.train --model video_gen_moving_digits

Sized for an hour or so on two CPU cores. Not trained yet. Latents, because on pixels (`--preset pixels`, and others
tried) digits changed their shape from frame to frame after 500 to 1,900 steps. On latents, of four numbers then, they
were sharp after 500, moved smoothly and changed slowly, at two thirds of the time a step.

The digits are those of Moving MNIST's protocol here, 28x28, which move by 1 to 3 pixels a step; three clips of four
have one of them and one has two. `benchmarks.generation` measures what the card claims.
"""

from typing import Any

from zoo.configs import TrainConfig

FRAMES, SIZE = 16, 64

DATA: dict[str, Any] = {"num_frames": FRAMES, "size": SIZE, "max_digits": 2}
"""The arguments of `moving_digits`: its split "train" to learn from, "test" to measure by."""

DEVIATION = 0.74
"""The root of the mean square of video_vae_moving_digits' latents."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TIME_MEANS = {"latents": -1.5, "pixels": -2.0}
"""Of pixels below video_gen's -1.4: four times as many and twice the frames tell what is shown through more noise."""

_STEPS, _BATCH = 4000, 8


def _preset(model: str, options: dict[str, Any], of: str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        model=model,
        options=options,
        task="generation",
        task_options={"clip_shape": (FRAMES, SIZE, SIZE, 1), "time_mean": TIME_MEANS[of], "know_frames": 0.4},
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


def _on_latents(denoiser: str, **denoiser_options: Any) -> TrainConfig:
    options = {"deviation": DEVIATION, "denoiser": denoiser, "denoiser_options": denoiser_options}
    start = {"codec": "video_vae_moving_digits"}
    return _preset("latent_video_gen", options, "latents", start=start, freeze="codec")


PRESETS = {
    "default": _on_latents("video_gen", widths=(128, 256)),
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
            "time_mean": TIME_MEANS["latents"],
            "steps": 10,
            "sampler": "heun",
            "guidance": 2.5,
        },
        "licence": "Code and weights Apache-2.0 (this project). Digits: UCI Optical Recognition, CC BY 4.0.",
        "attribution": "Trained by this project on scikit-learn's handwritten digits (Alpaydin and Kaynak, UCI).",
        "protocol": (
            "1,024 clips drawn with seed 0 as the card says, asked for the digits of the first 1,024 clips of the test "
            "split, whose digits are held out. agreement: a classifier trained on the train split finds all digits "
            "that were asked for and no other. fvd_ratio: (model - real) / (shuffled - real), each FVD against the "
            "next 1,024 clips of the test split: of the drawn clips, of the first 1,024, and of these with the frames "
            f"of each in random order. Trained on {_STEPS * _BATCH:,} clips."
        ),
    }
}
