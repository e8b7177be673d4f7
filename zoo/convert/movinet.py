"""MoViNet as MoViNet-pytorch publishes it (github.com/Atze00/MoViNet-pytorch): PyTorch state dicts of either form.

Their numbers are those of the authors' TensorFlow checkpoints. The stream form's filters are 2D there, some over rows
and columns, some over time and all places.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import kernel, norm_rows, read, without_counters
from zoo.models.movinet import A0, A1, A2, MoViNet

__all__ = ["convert", "read"]

_LEVELS = {sum(len(level.windows) for level in variant.levels): variant.levels for variant in (A0, A1, A2)}


def table(model: MoViNet) -> list[Row]:
    """The table for a network: theirs counts the blocks of each level anew."""
    rows = [*_unit("conv1", "stem"), *_unit("conv7", "project")]
    rows += [*_dense(r"classifier\.0", "head"), *_dense(r"classifier\.3", "logits")]
    levels = _LEVELS[len(model.blocks)]
    names = [rf"b{number}_l{repeat}" for number, level in enumerate(levels) for repeat in range(len(level.windows))]
    for index, name in enumerate(names):
        theirs, ours = rf"blocks\.{name}", f"blocks.{index}"
        rows += _unit(rf"{theirs}\.expand", f"{ours}.expand")
        rows += _unit(rf"{theirs}\.deep", f"{ours}.depthwise")
        rows += _unit(rf"{theirs}\.deep", f"{ours}.time", "conv_2", _time_kernel)
        rows += _dense(rf"{theirs}\.se\.fc1", f"{ours}.excitation.squeeze")
        rows += _dense(rf"{theirs}\.se\.fc2", f"{ours}.excitation.excite")
        rows += _unit(rf"{theirs}\.project", f"{ours}.project")
        rows += _unit(rf"{theirs}\.res\.[01]", f"{ours}.shortcut")  # the second where pooling comes first
        rows.append((rf"{theirs}\.alpha", f"{ours}.scale", as_is))
    return rows


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a `MoViNet` from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    assert isinstance(model, MoViNet)
    return apply_table(table(model), without_counters(foreign), model)


def _space_kernel(array: np.ndarray) -> np.ndarray:
    """`[F, C / groups, H, W]`, or with a window in time `[F, C / groups, T, H, W]`, to `[T, H, W, C / groups, F]`."""
    return kernel(array if array.ndim == 5 else array[:, :, None])


def _time_kernel(array: np.ndarray) -> np.ndarray:
    """`[F, C / groups, T, 1]` to `[T, 1, 1, C / groups, F]`."""
    return kernel(array[..., None])


def _unit(
    theirs: str, ours: str, name: str = "conv_1", transform: Callable[[np.ndarray], np.ndarray] = _space_kernel
) -> list[Row]:
    norm = norm_rows(rf"{theirs}\.{name}\.norm", f"{ours}.norm")
    return [(rf"{theirs}\.{name}\.conv[23]d\.weight", f"{ours}.conv.kernel", transform), *norm]


def _dense(theirs: str, ours: str) -> list[Row]:
    """A fully connected layer, there a convolution with a window of one."""
    conv = rf"{theirs}\.conv_1\.conv[23]d"
    return [
        (rf"{conv}\.weight", f"{ours}.kernel", lambda array: array.reshape(array.shape[:2]).T),
        (rf"{conv}\.bias", f"{ours}.bias", as_is),
    ]
