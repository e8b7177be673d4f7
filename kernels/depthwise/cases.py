"""Where the models convolve a channel at a time."""

from ..case import Case

_EFFICIENTNET = "efficientnet_lite0 16x224x224"
_X3D = "x3d_s 8x13x160x160"


def _depthwise(name: str, model: str, x: tuple[int, ...], window: tuple[int, ...], strides: int = 1) -> Case:
    return Case(name, model, "depthwise_conv", (x, (*window, 1, x[-1])), {"strides": strides, "padding": "SAME"})


CASES = (
    _depthwise("efficientnet stage 1", _EFFICIENTNET, (16, 112, 112, 32), (3, 3)),
    _depthwise("efficientnet stage 2 first", _EFFICIENTNET, (16, 112, 112, 96), (3, 3), 2),
    _depthwise("efficientnet stage 2", _EFFICIENTNET, (16, 56, 56, 144), (3, 3)),
    _depthwise("efficientnet stage 3", _EFFICIENTNET, (16, 28, 28, 240), (5, 5)),
    _depthwise("efficientnet stage 4", _EFFICIENTNET, (16, 14, 14, 480), (3, 3)),
    _depthwise("efficientnet stage 5", _EFFICIENTNET, (16, 14, 14, 672), (5, 5)),
    _depthwise("efficientnet stage 6", _EFFICIENTNET, (16, 7, 7, 1152), (5, 5)),
    _depthwise("x3d stem time", _X3D, (8, 13, 80, 80, 24), (5, 1, 1)),
    _depthwise("temporal of 3", "(2+1)D blocks 8x16x56x56", (8, 16, 56, 56, 64), (3, 1, 1)),
    _depthwise("temporal of 5", "(2+1)D blocks 8x16x56x56", (8, 16, 28, 28, 128), (5, 1, 1)),
)
