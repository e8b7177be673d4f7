"""A shot detector without a network: a frame's probability to end a shot is its brightness."""

import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import shot_detector
from zoo.shot_detector import ShotDetector


def detector(monkeypatch: pytest.MonkeyPatch) -> ShotDetector:
    """A real card around the stand-in."""

    def brightness(graph, state, windows):
        mean = windows.mean(axis=(2, 3, 4)) / 255
        return np.stack([mean, 1 - mean], axis=1)

    monkeypatch.setattr(shot_detector, "_run", brightness)
    monkeypatch.setattr(shot_detector, "_windows_a_call", lambda state: 2)
    return ShotDetector(zoo.card("transnetv2"), nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
