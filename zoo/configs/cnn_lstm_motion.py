"""A CNN-LSTM that tells which way and how fast a digit moves, which no single frame shows.

python -m zoo.train --config cnn_lstm_motion

The presets `single_frame` and `mean` are the same network, budget and data on one frame of each clip, and with a mean
over time in place of the LSTM: neither gets beyond chance, which the LSTM leaves before step 500.
"""

import dataclasses

from zoo.configs import TrainConfig
from zoo.data.digit_motion import LABELS

_CNN_LSTM = {
    "frame_cnn": "cnn_2d",
    "frame_cnn_options": {"image_size": 32},
    "hidden_features": 128,
    "dropout": 0.0,  # with 0.2 the same budget ends at 88%: data are endless, and nothing is learnt by heart
}

_DEFAULT = TrainConfig(
    model="cnn_lstm",
    options=_CNN_LSTM,
    task="classification",
    dataset="digit_motion",
    dataset_options={"num_frames": 8, "size": 32},
    steps=1000,
    batch_size=32,
    optimizer="muon",
    learning_rate=2e-2,
    evaluation_items=1600,
    evaluate_every=250,
)

PRESETS = {
    "default": _DEFAULT,
    "single_frame": dataclasses.replace(_DEFAULT, dataset_options={"num_frames": 1, "size": 32}),
    "mean": dataclasses.replace(_DEFAULT, options=_CNN_LSTM | {"num_layers": 0, "readout": "mean"}),
}

CARDS = {
    "cnn_lstm_motion": {
        "task": "classification",
        "description": "Tells which way a handwritten digit moves, and whether slowly or fast, which no frame shows.",
        "labels": LABELS,
        "preprocessing": {
            "num_frames": 8,
            "frame_rate": 8.0,
            "max_clips": 4,
            "resize_short": 32,
            "crop": 32,
            "interpolation": "bilinear",
            "mean": 127.5,
            "std": 127.5,
        },
        "licence": "Code and weights Apache-2.0 (this project). Digits: UCI Optical Recognition, CC BY 4.0.",
        "attribution": "Trained here by `zoo train --model cnn_lstm_motion`, on the digits that scikit-learn ships.",
        "protocol": "Share right of 1,600 generated clips (seed 0) with digits that training never saw; "
        "chance is 1/16, or 1/8 for who sees the way but not the speed. The same CNN and budget on single frames "
        "(preset single_frame): 0.065; with a mean over time in place of the LSTM (preset mean): 0.056.",
    }
}
