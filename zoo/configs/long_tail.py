"""Ten moving digits of which the most frequent has 500 clips and the rarest 5: what helps the rare ones?

python -m zoo.train --config long_tail --preset logit_adjusted

Presets: `default` does nothing about it; `square_root` and `balanced` are samplers, `class_balanced`, `focal` and
`logit_adjusted` losses. The same network, steps and seed each; 600 held-out clips, 60 a digit.
"""

import dataclasses

from zoo.configs import TrainConfig

_DEFAULT = TrainConfig(
    model="cnn_2d",
    options={"image_size": 32},
    task="classification",
    dataset="long_tailed_digits",
    steps=400,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=1e-2,
    evaluation_items=600,
    evaluate_every=200,
)

PRESETS = {
    "default": _DEFAULT,
    "square_root": dataclasses.replace(_DEFAULT, sampler="square_root"),
    "balanced": dataclasses.replace(_DEFAULT, sampler="balanced"),
    "class_balanced": dataclasses.replace(_DEFAULT, task_options={"class_balanced": 0.99}),
    "focal": dataclasses.replace(_DEFAULT, task_options={"focal": 2.0}),
    "logit_adjusted": dataclasses.replace(_DEFAULT, task_options={"logit_adjustment": 1.0}),
}
