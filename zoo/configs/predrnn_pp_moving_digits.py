"""A PredRNN++ that predicts the next ten frames of moving digits from ten, by Moving MNIST's protocol.

python -m zoo.train --model predrnn_pp_moving_digits

1,200 steps take 30 minutes on two cores of an Intel Xeon beside other work and end at a summed squared error of 41.1 on
the test set, where convlstm_moving_digits has 46.3 and the last frame copied 139.6.
"""

from zoo.configs.convlstm_moving_digits import card, presets

_STEPS, _BATCH = 1200, 16

PRESETS = presets(
    "predrnn_pp",
    {"features": 24, "num_layers": 2, "kernel_size": 3},
    steps=_STEPS,
    batch_size=_BATCH,
    learning_rate=1e-2,
    evaluate_every=300,
    checkpoint_every=100,
)

CARDS = {
    "predrnn_pp_moving_digits": card(
        "Predicts how handwritten digits move on: recurrent convolutions with a second memory.", _STEPS * _BATCH
    )
}
