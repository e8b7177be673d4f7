"""Tags of whole videos from YouTube-8M's frame features: 1024 of pictures and 128 of sound, a second.

python -m zoo.train --config youtube8m --data DIR

`DIR` holds the published train*.tfrecord and validate*.tfrecord of the frame features. Presets: `default` is an LSTM,
`nextvlad` the network that won a challenge with few parameters. The figures are hit@1, the precision at as many tags as
a video has, and the global average precision at 20. Not trained here, where the data set cannot be had.
"""

import dataclasses

from zoo.configs import TrainConfig

_DEFAULT = TrainConfig(
    model="frame_lstm",
    task="tagging",
    dataset="youtube8m",
    steps=100_000,
    batch_size=128,
    learning_rate=1e-3,
    warmup_steps=1000,
    ema_decay=0.999,
    evaluation_items=4096,
    log_every=100,
    evaluate_every=2000,
    checkpoint_every=2000,
)

PRESETS = {
    "default": _DEFAULT,
    "nextvlad": dataclasses.replace(_DEFAULT, model="nextvlad", learning_rate=2e-4),
}
