"""CenterNet-MobileNetV3 as the npm package @vladmandic/human 3.3.6 holds it: a TensorFlow.js graph, norms folded in."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.tensorflow_js import depthwise_kernel, read, without_constants

__all__ = ["convert", "read"]

# Optimising the graph put what it multiplied with a norm below "tower_0", and left the other weights where they were.
_ROOT = r"(?:tower_0/)?"
_BACKBONE, _HEAD = rf"{_ROOT}MobilenetV3/", rf"{_ROOT}CenternetHead/"


def _unit(theirs: str, ours: str) -> list[Row]:
    return [
        (f"{theirs}/Conv2D_weights", f"{ours}.conv.kernel", as_is),
        (f"{theirs}/Conv2D_bn_offset", f"{ours}.bias", as_is),
    ]


def _separable(theirs: str, ours: str, pointwise: str, bias: str) -> list[Row]:
    return [
        (f"{theirs}/depthwise_weights", f"{ours}.depthwise.kernel", depthwise_kernel),
        (f"{theirs}/{pointwise}", f"{ours}.pointwise.conv.kernel", as_is),
        (f"{theirs}/{bias}", f"{ours}.pointwise.bias", as_is),
    ]


def _block(theirs: str, ours: str) -> list[Row]:
    return [
        *_unit(f"{theirs}/expand", f"{ours}.expand"),
        (f"{theirs}/depthwise/depthwise_weights", f"{ours}.depthwise.conv.kernel", depthwise_kernel),
        (f"{theirs}/depthwise/depthwise_bn_offset", f"{ours}.depthwise.bias", as_is),
        *_unit(f"{theirs}/project", f"{ours}.project"),
        *(
            (f"{theirs}/squeeze_excite/{step}/{array}", f"{ours}.squeeze_excite.{name}.{what}", as_is)
            for step, name in (("Conv", "squeeze"), ("Conv_1", "excite"))
            for array, what in (("weights", "kernel"), ("biases", "bias"))
        ),
    ]


_FOLDED = ("separable_conv2d_weights", "separable_conv2d_bn_offset")
_PLAIN = ("pointwise_weights", "biases")

TABLE: list[Row] = [
    *_unit(rf"{_BACKBONE}Conv", "stem"),
    *_block(rf"{_BACKBONE}expanded_conv", "blocks.0"),
    *_block(rf"{_BACKBONE}expanded_conv_(\d+)", r"blocks.\1"),
    *_unit(rf"{_ROOT}extern1", "top"),
    *(
        row
        for level in range(3)
        for row in (
            *_unit(rf"{_HEAD}c{level + 2}_reverse/1x1", f"laterals.{level}.squeeze"),
            *_separable(rf"{_HEAD}c{level + 2}_reverse/3x3", f"laterals.{level}.filter", *_FOLDED),
            *_separable(rf"{_HEAD}c{level + 3}_upsample/branch_x_upsample_resize", f"climbs.{level}.near", *_FOLDED),
            *_separable(rf"{_HEAD}c{level + 3}_upsample/branch_y_upsample_resize", f"climbs.{level}.far", *_FOLDED),
        )
    ),
    (rf"{_HEAD}conv1x1_se_a/Conv2D_weights", "squeeze_excite.squeeze.kernel", as_is),
    (rf"{_HEAD}conv1x1_se_a/Conv2D_bn_offset", "squeeze_excite.squeeze.bias", as_is),
    (rf"{_HEAD}conv1x1_se_b/weights", "squeeze_excite.excite.kernel", as_is),
    *_separable(rf"{_HEAD}centernet_cls_output", "classes", *_PLAIN),
    *_separable(rf"{_HEAD}centernet_wh_output", "distances", *_PLAIN),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a CenterNet from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, without_constants(foreign), model)
