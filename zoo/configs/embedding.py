"""Vectors by which copies of a clip are found: a correction of I3D's features, by InfoNCE over altered copies.

python -m zoo.train --task embedding

The data are clips of real films and photos out of packages, 150 of each, and of each three copies, made as
`zoo.tasks.copies` makes them: at another pace, cropped, mirrored, captioned and compressed. I3D is frozen and sees each
once; the films held out are those of `zoo/data/real_films.csv` with the split "test". The preset `clips` does the same
with videos of one's own: `--preset clips --dataset folder:DIR`, a folder of folders, whose names do not count.
"""

import dataclasses
from typing import Any

from zoo import registry
from zoo.configs import TrainConfig

_BACKBONE = "i3d_kinetics400"
_FRAMES = 32  # as many as the index of videos looks at

_DATA: dict[str, Any] = {"num_frames": _FRAMES, "kinds": ("film", "photo"), "clips_a_kind": 150, "clips_a_film": 4}

_DEFAULT = TrainConfig(
    model="embedder",
    options={"num_classes": 400},
    start={"backbone": _BACKBONE},
    freeze="backbone",
    task="embedding",
    task_options={"backbone": _BACKBONE},
    dataset="real_clips",
    dataset_options=_DATA,
    steps=300,
    batch_size=64,
    learning_rate=1e-4,
    weight_decay=0.1,
    ema_decay=0.98,
    evaluate_every=100,
    checkpoint_every=100,
)

PRESETS = {
    "default": _DEFAULT,
    "clips": dataclasses.replace(
        _DEFAULT,
        dataset="folder:clips",
        dataset_options={"preprocessing": registry.card(_BACKBONE).preprocessing | {"num_frames": _FRAMES}},
    ),
}
