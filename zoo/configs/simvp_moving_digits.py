"""A SimVP that predicts the next ten frames of moving digits from ten, by Moving MNIST's protocol.

python -m zoo.train --model simvp_moving_digits

1,000 steps take 28 minutes on two cores of an Intel Xeon beside other work and end at a summed squared error of 48.8 on
the test set, where convlstm_moving_digits has 46.3 and the last frame copied 139.6.
"""

from zoo.configs.convlstm_moving_digits import card, presets

_STEPS, _BATCH = 1000, 16

PRESETS = presets(
    "simvp",
    {"spatial_features": 16, "temporal_features": 128, "num_blocks": 4, "mlp_ratio": 4},
    steps=_STEPS,
    batch_size=_BATCH,
    learning_rate=1e-2,
    evaluate_every=250,
    checkpoint_every=100,
)

CARDS = {
    "simvp_moving_digits": card(
        "Predicts how handwritten digits move on: convolutions alone, ten frames at once.", _STEPS * _BATCH
    )
}
