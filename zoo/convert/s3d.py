"""S3D as torchvision publishes it: a PyTorch state dict."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import kernel, read, unit_rows, without_counters
from zoo.models.inception import BLOCKS

__all__ = ["convert", "read"]

# Theirs are counted through, the poolings included.
_BLOCKS = dict(zip(BLOCKS, (5, 6, 8, 9, 10, 11, 12, 14, 15), strict=True))
_UNITS = {r"features\.2": "conv_2b"} | {
    rf"features\.{index}\.branch{theirs}": f"{name}.branch_{ours}"
    for name, index in _BLOCKS.items()
    for theirs, ours in {"0": "0", r"1\.0": "1a", r"2\.0": "2a", r"3\.1": "3"}.items()
}
_SEPARABLE = {r"features\.0": "conv_1a", r"features\.3": "conv_2c"} | {
    rf"features\.{index}\.branch{branch}\.1": f"{name}.branch_{branch}b"
    for name, index in _BLOCKS.items()
    for branch in (1, 2)
}

TABLE: list[Row] = [
    *(row for theirs, ours in _UNITS.items() for row in unit_rows(rf"{theirs}\.0", rf"{theirs}\.1", ours)),
    *(
        row
        for theirs, ours in _SEPARABLE.items()
        for half, axis in enumerate(("space", "time"))
        for row in unit_rows(rf"{theirs}\.{half}\.0", rf"{theirs}\.{half}\.1", f"{ours}.{axis}")
    ),
    (r"classifier\.1\.weight", "logits.kernel", kernel),
    (r"classifier\.1\.bias", "logits.bias", as_is),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of an S3D from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, without_counters(foreign), model)
