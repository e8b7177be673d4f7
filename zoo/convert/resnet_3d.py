"""R3D-18, MC3-18 and R(2+1)D-18 as torchvision publishes them: a PyTorch state dict."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table
from zoo.convert.pytorch import dense_rows, read, unit_rows, without_counters
from zoo.models.resnet_3d import Factorised, ResNet3D

__all__ = ["convert", "read"]

_BLOCKS = [
    (f"layer{level + 1}\\.{repeat}", f"blocks.{2 * level + repeat}") for level in range(4) for repeat in range(2)
]

_AROUND: list[Row] = [
    *unit_rows(r"stem\.0", r"stem\.1", "stem.units.0"),
    *unit_rows(r"stem\.3", r"stem\.4", "stem.units.1"),
    *(
        row
        for theirs, ours in _BLOCKS
        for row in unit_rows(rf"{theirs}\.downsample\.0", rf"{theirs}\.downsample\.1", f"{ours}.shortcut")
    ),
    *dense_rows("fc", "logits"),
]
_PLACES = [
    (rf"{theirs}\.conv{number}", f"{ours}.{place}")
    for theirs, ours in _BLOCKS
    for number, place in ((1, "first"), (2, "second"))
]

# In both forms a normalisation is called conv1.1: behind the whole convolution, or behind the half of it in time.
FULL: list[Row] = _AROUND + [
    row for theirs, ours in _PLACES for row in unit_rows(rf"{theirs}\.0", rf"{theirs}\.1", ours)
]
FACTORISED: list[Row] = _AROUND + [
    row
    for theirs, ours in _PLACES
    for row in (
        *unit_rows(rf"{theirs}\.0\.0", rf"{theirs}\.0\.1", f"{ours}.space"),
        *unit_rows(rf"{theirs}\.0\.3", rf"{theirs}\.1", f"{ours}.time"),
    )
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a `ResNet3D` from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    assert isinstance(model, ResNet3D)
    table = FACTORISED if isinstance(model.blocks[0].first, Factorised) else FULL
    return apply_table(table, without_counters(foreign), model)
