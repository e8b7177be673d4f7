"""Slow and SlowFast as PyTorchVideo publishes them: a PyTorch state dict under the key "model_state"."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table
from zoo.convert.pytorch import dense_rows, read, unit_rows, within, without_counters
from zoo.models.slowfast import DEPTHS, SlowFast

__all__ = ["convert", "read"]


def _pathway(ours: str, between: str) -> list[Row]:
    """Rows of one pathway; `between` is what their names have behind the number of a stage."""
    rows = unit_rows(rf"blocks\.0{between}\.conv", rf"blocks\.0{between}\.norm", f"{ours}.stem")
    index = 0
    for stage, depth in enumerate(DEPTHS):
        for repeat in range(depth):
            theirs, block = rf"blocks\.{stage + 1}{between}\.res_blocks\.{repeat}", f"{ours}.blocks.{index}"
            for unit, letter in enumerate("abc"):
                branch = rf"{theirs}\.branch2"
                rows += unit_rows(rf"{branch}\.conv_{letter}", rf"{branch}\.norm_{letter}", f"{block}.units.{unit}")
            rows += unit_rows(rf"{theirs}\.branch1_conv", rf"{theirs}\.branch1_norm", f"{block}.shortcut")
            index += 1
    return rows


SLOW: list[Row] = [*_pathway("slow", ""), *dense_rows(r"blocks\.5\.proj", r"head.logits")]
SLOWFAST: list[Row] = [
    *_pathway("slow", r"\.multipathway_blocks\.0"),
    *_pathway("fast", r"\.multipathway_blocks\.1"),
    *(
        row
        for level in range(len(DEPTHS))
        for row in unit_rows(
            rf"blocks\.{level}\.multipathway_fusion\.conv_fast_to_slow",
            rf"blocks\.{level}\.multipathway_fusion\.norm",
            f"fuse.{level}",
        )
    ),
    *dense_rows(r"blocks\.6\.proj", r"head.logits"),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a `Slow` or `SlowFast` from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    table = SLOWFAST if isinstance(model, SlowFast) else SLOW
    return apply_table(table, without_counters(within(foreign, "model_state")), model)
