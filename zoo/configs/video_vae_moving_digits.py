"""The video autoencoder on moving digits: 16x64x64 pixels as 8x8x8 latents of eight numbers.

python -m zoo.train --model video_vae_moving_digits

1,000 steps take 15 minutes on two cores of an Intel Xeon beside other work and end at a squared error of 0.0022, pixels
being from -1 to 1 and one clip of four having two digits. `--preset decoder` then learns to decode alone, for 3,000
steps (39 minutes on one core of an AMD EPYC), to 0.0011: that is published, and `video_gen_moving_digits` draws with
it. On OpenCV's digits, whose lines are finer, 1,500 steps end at 0.0044, with latents of four numbers and 800 steps at
0.0103. 3,000 steps of coding and decoding end at 0.0010, but a generator that was learnt on those latents drew worse
(docs/video_generation.md).
"""

from typing import Any

from zoo.configs import TrainConfig
from zoo.configs.convlstm_moving_digits import SEES
from zoo.configs.video_gen_moving_digits import DATA, FRAMES, LEARNT

_STEPS, _DECODER_STEPS, _BATCH = 1000, 3000, 8


def _preset(steps: int, **changes: Any) -> TrainConfig:
    return TrainConfig(
        model="video_vae",
        task="reconstruction",
        dataset="moving_digits",
        optimizer="muon",
        learning_rate=0.01,
        steps=steps,
        batch_size=_BATCH,
        ema_decay=0.995,
        evaluate_every=500,
        checkpoint_every=100,
        **changes,
    )


PRESETS = {
    "default": _preset(_STEPS, dataset_options=DATA),
    # What is published, drawn better: a generator of its latents need not be learnt anew.
    "decoder": _preset(
        _DECODER_STEPS,
        dataset_options=LEARNT,
        task_options={"coding": False},
        start={"": "video_vae_moving_digits"},
    ),
}

CARDS = {
    "video_vae_moving_digits": {
        "task": "reconstruction",
        "description": "Codes clips of handwritten digits as small latents, and draws them from those.",
        "labels": (),
        "preprocessing": SEES | {"num_frames": FRAMES},
        "licence": "Code and weights Apache-2.0 (this project). Digits: UCI Optical Recognition, CC BY 4.0.",
        "attribution": "Trained by this project on scikit-learn's handwritten digits (Alpaydin and Kaynak, UCI).",
        "protocol": (
            "The first 256 clips of the test split, whose digits are held out, half of them with two, from -1, black, "
            "to 1. squared_error: of pixels; divergence: of latents from a standard normal distribution, in nats; "
            f"mean_square: of latents. Trained on {_STEPS * _BATCH:,} clips, the decoder on "
            f"{_DECODER_STEPS * _BATCH:,} more."
        ),
    }
}
