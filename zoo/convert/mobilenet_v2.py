"""MobileNetV2 as torchvision publishes it: a PyTorch state dict."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table
from zoo.convert.pytorch import dense_rows, read, unit_rows, without_counters
from zoo.models.mobilenet_v2 import STAGES

__all__ = ["convert", "read"]

_EXPANSIONS = [expansion for expansion, _, repeats, _ in STAGES for _ in range(repeats)]


def _block(index: int, expansion: int) -> list[Row]:
    """Their parts of a block are numbered, and begin with the filters where nothing is widened."""
    theirs, ours = rf"features\.{index + 1}\.conv", f"blocks.{index}"
    rows: list[Row] = []
    at = 0
    if expansion > 1:
        rows += unit_rows(rf"{theirs}\.0\.0", rf"{theirs}\.0\.1", f"{ours}.expand")
        at = 1
    rows += unit_rows(rf"{theirs}\.{at}\.0", rf"{theirs}\.{at}\.1", f"{ours}.depthwise")
    return rows + unit_rows(rf"{theirs}\.{at + 1}", rf"{theirs}\.{at + 2}", f"{ours}.project")


TABLE: list[Row] = [
    *unit_rows(r"features\.0\.0", r"features\.0\.1", "stem"),
    *(row for index, expansion in enumerate(_EXPANSIONS) for row in _block(index, expansion)),
    *unit_rows(r"features\.18\.0", r"features\.18\.1", "head"),
    *dense_rows(r"classifier\.1", "classifier"),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a MobileNetV2 from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, without_counters(foreign), model)
