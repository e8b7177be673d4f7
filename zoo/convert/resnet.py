"""ResNet-18 and ResNet-50 as torchvision publishes them: a PyTorch state dict."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table
from zoo.convert.pytorch import dense_rows, read, unit_rows, without_counters
from zoo.models.resnet import STEM_FEATURES, ResNet

__all__ = ["convert", "read"]


def table(model: ResNet) -> list[Row]:
    """The table for a network: torchvision counts its blocks anew in each level, which doubles the width."""
    rows = [*unit_rows("conv1", "bn1", "stem"), *dense_rows("fc", "logits")]
    before, repeat = 0, 0
    for index, block in enumerate(model.blocks):
        level = (block.units[0].conv.kernel.shape[-1] // STEM_FEATURES).bit_length()
        before, repeat = level, repeat + 1 if level == before else 0
        theirs, ours = rf"layer{level}\.{repeat}", f"blocks.{index}"
        for unit in range(len(block.units)):
            rows += unit_rows(rf"{theirs}\.conv{unit + 1}", rf"{theirs}\.bn{unit + 1}", f"{ours}.units.{unit}")
        rows += unit_rows(rf"{theirs}\.downsample\.0", rf"{theirs}\.downsample\.1", f"{ours}.shortcut")
    return rows


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a `ResNet` from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    assert isinstance(model, ResNet)
    return apply_table(table(model), without_counters(foreign), model)
