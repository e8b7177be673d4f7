"""A detector without a network: what is red is a person, all of it one."""

import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import detector
from zoo.detector import Detector
from zoo.tasks.boxes import MOST

SCORE = 0.9


def finder(monkeypatch: pytest.MonkeyPatch) -> Detector:
    """A real card around the stand-in; three squares a call. `finder(...).calls` counts them."""
    calls: list[tuple[int, ...]] = []

    def red(graph, state, squares):
        calls.append(squares.shape)
        boxes, scores = np.zeros((len(squares), MOST, 4), np.float32), np.zeros((len(squares), MOST), np.float32)
        for index, square in enumerate(squares.astype(int)):
            rows, columns = np.nonzero((square[..., 0] > 150) & (square[..., 1:].max(axis=-1) < 100))
            if len(rows):
                boxes[index, 0] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                scores[index, 0] = SCORE
        return boxes, scores, np.zeros((len(squares), MOST), int)

    monkeypatch.setattr(detector, "_run", red)
    monkeypatch.setattr(detector, "squares_a_call", lambda state: 3)
    made = Detector(zoo.card("centernet_coco"), nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    made.calls = calls
    return made


def walk(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3]: a red block, 8 wide and 16 high, that walks to the right on grey."""
    frames = np.full((count, height, width, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        left = 4 + 2 * index
        frame[16:32, left : left + 8] = (220, 20, 20)
    return frames
