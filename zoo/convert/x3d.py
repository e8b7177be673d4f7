"""X3D as PyTorchVideo publishes it: a PyTorch state dict under the key "model_state"."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import dense_rows, kernel, norm_rows, read, unit_rows, within, without_counters
from zoo.models.x3d import STAGES

__all__ = ["convert", "read"]


def _point(array: np.ndarray) -> np.ndarray:
    """`[F, C, 1, 1, 1]`, a dense layer written as a convolution, to `[C, F]`."""
    return array.reshape(array.shape[:2]).T


def _block(theirs: str, ours: str) -> list[Row]:
    branch = rf"{theirs}\.branch2"
    return [
        *unit_rows(rf"{branch}\.conv_a", rf"{branch}\.norm_a", f"{ours}.expand"),
        *unit_rows(rf"{branch}\.conv_b", rf"{branch}\.norm_b\.0", f"{ours}.depthwise"),
        *(
            row
            for index, name in ((0, "squeeze"), (2, "excite"))
            for row in (
                (rf"{branch}\.norm_b\.1\.block\.{index}\.weight", f"{ours}.excitation.{name}.kernel", _point),
                (rf"{branch}\.norm_b\.1\.block\.{index}\.bias", f"{ours}.excitation.{name}.bias", as_is),
            )
        ),
        *unit_rows(rf"{branch}\.conv_c", rf"{branch}\.norm_c", f"{ours}.project"),
    ]


def _shortcut(theirs: str, ours: str, *, normalised: bool) -> list[Row]:
    if normalised:
        return unit_rows(rf"{theirs}\.branch1_conv", rf"{theirs}\.branch1_norm", f"{ours}.shortcut")
    return [(rf"{theirs}\.branch1_conv\.weight", f"{ours}.shortcut.kernel", kernel)]


def _blocks() -> list[Row]:
    rows: list[Row] = []
    index = 0
    for stage, (_, repeats) in enumerate(STAGES):
        for repeat in range(repeats):
            theirs, ours = rf"blocks\.{stage + 1}\.res_blocks\.{repeat}", f"blocks.{index}"
            rows += _block(theirs, ours)
            if repeat == 0:
                rows += _shortcut(theirs, ours, normalised=stage > 0)
            index += 1
    return rows


TABLE: list[Row] = [
    # Theirs name the two halves of the stem the other way round.
    (r"blocks\.0\.conv\.conv_t\.weight", "stem.space.kernel", kernel),
    (r"blocks\.0\.conv\.conv_xy\.weight", "stem.time.conv.kernel", kernel),
    *norm_rows(r"blocks\.0\.norm", "stem.time.norm"),
    *_blocks(),
    *unit_rows(r"blocks\.5\.pool\.pre_conv", r"blocks\.5\.pool\.pre_norm", "head"),
    (r"blocks\.5\.pool\.post_conv\.weight", "project.kernel", kernel),
    *dense_rows(r"blocks\.5\.proj", "logits"),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of an X3D from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, without_counters(within(foreign, "model_state")), model)
