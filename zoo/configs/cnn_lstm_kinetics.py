"""I3D on windows of 16 frames with an LSTM over them, taught by I3D on the whole clip.

python -m zoo.train --config cnn_lstm_kinetics

The data are real videos out of packages, strongly varied, without labels. Protocol, fixed before the first training:
the films held out are those of `zoo/data/real_clips.csv` with the split "test", all other films train; 32 frames at 8 a
second; 2,000 training clips, seed 0; the figures are agreement with the teacher on every held-out clip. The preset
`mean` has no LSTM: its answer is the classifier's on what was seen so far.
"""

import dataclasses

from zoo.configs import TrainConfig

_DEFAULT = TrainConfig(
    model="i3d_lstm",
    start={"i3d": "i3d_kinetics400"},
    task="windowed_i3d",
    dataset="real_clips",
    dataset_options={"num_frames": 32, "size": 224},
    steps=1200,
    batch_size=16,
    learning_rate=3e-4,
    warmup_steps=50,
    ema_decay=0.99,
    evaluation_items=200,
    evaluate_every=100,
    checkpoint_every=100,
)

PRESETS = {
    "default": _DEFAULT,
    "mean": dataclasses.replace(_DEFAULT, options={"hidden_features": 0}),
}
