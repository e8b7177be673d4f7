"""Vectors by which copies of a clip are found: a correction of I3D's features, by InfoNCE over altered copies.

python -m zoo.train --task embedding

The data are clips of real films and photos out of packages, 40 of each, and of each two copies, made as
`zoo.tasks.copies` makes them: at another pace, cropped, mirrored, captioned and compressed. Held out are the films of
`zoo/data/real_films.csv` with the split "test", 45 clips of six films. I3D is frozen and sees each clip and copy once,
2.5 s of a core for the three; the rest of a run takes two minutes beside other work. The mean average precision with
which held-out copies find their clip goes from 0.968 to 0.980, which is 3 of 90 questions, and in folds of the training
films it does not rise: docs/search.md. No vectors are published.

The preset `clips` does the same with videos of one's own: `--preset clips --dataset folder:DIR`, a folder of folders,
whose names do not count.
"""

import dataclasses
from typing import Any

from zoo import registry
from zoo.configs import TrainConfig

_BACKBONE = "i3d_kinetics400"
_FRAMES = 32  # as many as the index of videos looks at

_DATA: dict[str, Any] = {"num_frames": _FRAMES, "kinds": ("film", "photo"), "clips_a_kind": 40}

_DEFAULT = TrainConfig(
    model="embedder",
    options={"num_classes": 400},
    start={"backbone": _BACKBONE},
    freeze="backbone",
    task="embedding",
    task_options={"backbone": _BACKBONE, "copies": 3},
    dataset="real_clips",
    dataset_options=_DATA,
    steps=150,
    batch_size=32,
    learning_rate=1e-4,
    weight_decay=0.1,
    ema_decay=0.98,
    evaluate_every=50,
    checkpoint_every=150,
)

PRESETS = {
    "default": _DEFAULT,
    "clips": dataclasses.replace(
        _DEFAULT,
        dataset="folder:clips",
        dataset_options={"preprocessing": registry.card(_BACKBONE).preprocessing | {"num_frames": _FRAMES}},
    ),
}
