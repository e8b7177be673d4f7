"""MoveNet Lightning as the npm package @vladmandic/human 3.3.6 holds it: a TensorFlow.js graph, norms folded in."""

import re
from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.tensorflow_js import depthwise_kernel, read, without_constants

__all__ = ["convert", "read"]

_ROOT = r"StatefulPartitionedCall/"
_PYRAMID = rf"{_ROOT}center_net_mobile_net_v2fpn_feature_extractor/model_1/"
_BACKBONE = rf"{_PYRAMID}model/"

# Grids of coordinates, scales and the weights of places, which the graph holds as if they were weights.
_CONSTANTS = re.compile(rf"{_ROOT}(Reshape(_13)?|truediv|strided_slice_[34])|ConstantFolding/.*truediv_2_recip")

_BLOCKS = ((rf"{_BACKBONE}expanded_conv", "blocks.0"), (rf"{_BACKBONE}block_(\d+)", r"blocks.\1"))
_PLAIN = {"conv2d": "descent", "conv2d_1": "laterals.2", "conv2d_2": "laterals.1", "conv2d_3": "laterals.0"}
_MERGES = {"separable_conv2d": "merges.2", "separable_conv2d_1": "merges.1", "separable_conv2d_2": "merges.0"}
_HEADS = (
    ("center_0", "separable_conv2d_3", "conv2d_4", "middle"),
    ("kpt_heatmap_0", "separable_conv2d_4", "conv2d_5", "heat"),
    ("kpt_regress_0", "separable_conv2d_5", "conv2d_6", "reach"),
    ("kpt_offset_0", "separable_conv2d_6", "conv2d_7", "offsets"),
)


def _unit(theirs: str, ours: str) -> list[Row]:
    return [
        (f"{theirs}/Conv2D_weights", f"{ours}.conv.kernel", as_is),
        (f"{theirs}/Conv2D_bn_offset", f"{ours}.bias", as_is),
    ]


def _plain(theirs: str, ours: str) -> list[Row]:
    return [
        (f"{theirs}/Conv2D/ReadVariableOp", f"{ours}.kernel", as_is),
        (f"{theirs}/BiasAdd/ReadVariableOp", f"{ours}.bias", as_is),
    ]


TABLE: list[Row] = [
    *_unit(rf"{_BACKBONE}Conv1", "stem"),
    *_unit(rf"{_BACKBONE}Conv_1", "top"),
    *(
        row
        for theirs, ours in _BLOCKS
        for row in (
            *_unit(f"{theirs}_expand", f"{ours}.expand"),
            (f"{theirs}_depthwise/depthwise_weights", f"{ours}.depthwise.conv.kernel", depthwise_kernel),
            (f"{theirs}_depthwise/depthwise_bn_offset", f"{ours}.depthwise.bias", as_is),
            *_unit(f"{theirs}_project", f"{ours}.project"),
        )
    ),
    *(row for theirs, ours in _PLAIN.items() for row in _plain(_PYRAMID + theirs, ours)),
    *(
        row
        for theirs, ours in _MERGES.items()
        for row in (
            (rf"{_PYRAMID}{theirs}/separable_conv2d/ReadVariableOp", f"{ours}.depthwise.kernel", depthwise_kernel),
            (rf"{_PYRAMID}{theirs}/separable_conv2d_weights", f"{ours}.pointwise.conv.kernel", as_is),
            (rf"{_PYRAMID}{theirs}/separable_conv2d_bn_offset", f"{ours}.pointwise.bias", as_is),
        )
    ),
    *(
        row
        for head, hidden, out, name in _HEADS
        for row in (
            (
                rf"{_ROOT}{head}/{hidden}/separable_conv2d/ReadVariableOp",
                f"heads.{name}.hidden.depthwise.kernel",
                depthwise_kernel,
            ),
            (
                rf"{_ROOT}{head}/{hidden}/separable_conv2d/ReadVariableOp_1",
                f"heads.{name}.hidden.pointwise.conv.kernel",
                as_is,
            ),
            (rf"{_ROOT}{head}/{hidden}/BiasAdd/ReadVariableOp", f"heads.{name}.hidden.pointwise.bias", as_is),
            *_plain(rf"{_ROOT}{head}/{out}", f"heads.{name}.out"),
        )
    ),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a MoveNet from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    weights = {name: array for name, array in foreign.items() if not _CONSTANTS.fullmatch(name)}
    return apply_table(TABLE, without_constants(weights), model)
