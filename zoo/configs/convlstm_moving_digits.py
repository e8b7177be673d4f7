"""A ConvLSTM that predicts the next ten frames of moving digits from ten, by Moving MNIST's protocol.

python -m zoo.train --model convlstm_moving_digits

1,200 steps take 20 minutes on two cores of an Intel Xeon and end at a summed squared error of 46.3 on the test set.
Copying the last frame has 139.6 there, extrapolating straight on 181.0, black 80.0.
"""

from typing import Any

from zoo.configs import TrainConfig
from zoo.data.moving_digits import MOVING_MNIST, TEST_SEQUENCES

SEES = {
    "num_frames": 10,
    "frame_rate": 10.0,
    "max_clips": 1,
    "resize_short": 64,
    "crop": 64,
    "interpolation": "bilinear",
    "mean": 0.0,
    "std": 255.0,
}


def presets(model: str, options: dict[str, Any], **changes: Any) -> dict[str, TrainConfig]:
    """Runs of a network that predicts frames.

    "default" follows the protocol and is evaluated on the whole test set. "clips" learns from videos of one's own, in
    colour: give `--dataset folder:DIR`, a folder of class folders.
    """
    common: dict[str, Any] = {"model": model, "task": "prediction", "optimizer": "muon", **changes}
    clips = SEES | {"num_frames": 20}
    return {
        "default": TrainConfig(
            options=options,
            dataset="moving_digits",
            dataset_options=MOVING_MNIST,
            evaluation_items=TEST_SEQUENCES,
            **common,
        ),
        "clips": TrainConfig(
            options=options | {"channels": 3},
            dataset="folder:clips",
            dataset_options={"preprocessing": clips},
            **common,
        ),
    }


def card(description: str, sequences: int) -> dict[str, Any]:
    """What the card of a model trained so says; `sequences` of the training's budget."""
    return {
        "task": "prediction",
        "description": description,
        "labels": (),
        "preprocessing": SEES,
        "licence": "Code and weights Apache-2.0 (this project). Digits: OpenCV's documentation, Apache-2.0.",
        "attribution": "Trained by this project on the 5,000 handwritten digits of OpenCV's documentation.",
        "protocol": (
            f"Moving MNIST's: 10 frames of 64x64 in, 10 out, two digits; the first {TEST_SEQUENCES:,} sequences of the "
            "test split, whose digits are held out (SHA-256 of their pixels: zoo.data.moving_digits.TEST_SHA256). mse "
            "and mae are summed over a frame's pixels from 0 to 1, averaged over frames and sequences; ssim has data "
            "range 1, ssim_range2 the 2 of the literature. Trained on "
            f"{sequences:,} sequences; the literature takes 2,000,000."
        ),
        "verification": {"dataset": "moving_digits", "videos": TEST_SEQUENCES, "relative_tolerance": 0.005},
    }


_STEPS, _BATCH = 1200, 16

PRESETS = presets(
    "convlstm",
    {"widths": (48, 48), "kernel_size": 3},
    steps=_STEPS,
    batch_size=_BATCH,
    learning_rate=1e-2,
    evaluate_every=300,
    checkpoint_every=100,
)

CARDS = {
    "convlstm_moving_digits": card(
        "Predicts how handwritten digits move on: recurrent convolutions, frame by frame.", _STEPS * _BATCH
    )
}
