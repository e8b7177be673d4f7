"""Where the models convolve, with the batches of the whole-model benchmark: 4 clips for I3D, 8 or 16 for others."""

from ..arguments import Padding
from ..case import Case

_I3D = "i3d 4x16x224x224"
_R3D = "r3d_18 8x16x112x112"
_R2PLUS1D = "r2plus1d_18 8x16x112x112"
_RESNET = "resnet18 16x224x224"
_CNN_2D = "cnn_2d 16x224x224"
_VIDEO_GEN = "video_gen full 4x16x64x64"


def _conv(
    name: str,
    model: str,
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
) -> Case:
    return Case(name, model, "conv", (x, kernel), {"strides": strides, "padding": padding})


STEMS = (
    _conv("i3d conv 1a", _I3D, (4, 16, 224, 224, 3), (7, 7, 7, 3, 64), 2),
    _conv("r3d stem", _R3D, (8, 16, 112, 112, 3), (3, 7, 7, 3, 64), (1, 2, 2), ((1, 1), (3, 3), (3, 3))),
    _conv("r2plus1d stem", _R2PLUS1D, (8, 16, 112, 112, 3), (1, 7, 7, 3, 45), (1, 2, 2), ((0, 0), (3, 3), (3, 3))),
    _conv("resnet stem", _RESNET, (16, 224, 224, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3))),
    _conv("efficientnet_lite0 stem", "efficientnet_lite0 16x224x224", (16, 224, 224, 3), (3, 3, 3, 32), 2),
    _conv("cnn_2d conv 1", _CNN_2D, (16, 224, 224, 3), (3, 3, 3, 32)),
)

CONV_2D = (
    _conv("cnn_2d conv 2", _CNN_2D, (16, 112, 112, 32), (3, 3, 32, 64)),
    _conv("cnn_2d conv 3", _CNN_2D, (16, 56, 56, 64), (3, 3, 64, 128)),
    _conv("resnet layer 1", _RESNET, (16, 56, 56, 64), (3, 3, 64, 64)),
    _conv("resnet layer 2 first", _RESNET, (16, 56, 56, 64), (3, 3, 64, 128), 2, ((1, 1), (1, 1))),
    _conv("resnet layer 2", _RESNET, (16, 28, 28, 128), (3, 3, 128, 128)),
    _conv("resnet layer 3", _RESNET, (16, 14, 14, 256), (3, 3, 256, 256)),
    _conv("resnet layer 4", _RESNET, (16, 7, 7, 512), (3, 3, 512, 512)),
    _conv("video_gen level 1 space", _VIDEO_GEN, (64, 16, 16, 128), (3, 3, 128, 128)),
)

CONV_3D = (
    _conv("i3d conv 2b", _I3D, (4, 8, 56, 56, 64), (1, 1, 1, 64, 64)),
    _conv("i3d conv 2c", _I3D, (4, 8, 56, 56, 64), (3, 3, 3, 64, 192)),
    _conv("i3d mixed 3b branch 1", _I3D, (4, 8, 28, 28, 96), (3, 3, 3, 96, 128)),
    _conv("i3d mixed 3b branch 2", _I3D, (4, 8, 28, 28, 16), (3, 3, 3, 16, 32)),
    _conv("i3d mixed 4d branch 1", _I3D, (4, 4, 14, 14, 128), (3, 3, 3, 128, 256)),
    _conv("i3d mixed 5b branch 1", _I3D, (4, 2, 7, 7, 160), (3, 3, 3, 160, 320)),
    _conv("64 channels of 28x28", _R3D, (2, 8, 28, 28, 64), (3, 3, 3, 64, 64)),
    _conv("r3d layer 1", _R3D, (8, 16, 56, 56, 64), (3, 3, 3, 64, 64)),
    _conv("r3d layer 2 first", _R3D, (8, 16, 56, 56, 64), (3, 3, 3, 64, 128), 2, ((1, 1),) * 3),
    _conv("r3d layer 2", _R3D, (8, 8, 28, 28, 128), (3, 3, 3, 128, 128)),
    _conv("r3d layer 3", _R3D, (8, 4, 14, 14, 256), (3, 3, 3, 256, 256)),
    _conv("r2plus1d stem time", _R2PLUS1D, (8, 16, 56, 56, 45), (3, 1, 1, 45, 64)),
    _conv("r2plus1d layer 1 space", _R2PLUS1D, (8, 16, 56, 56, 64), (1, 3, 3, 64, 144)),
    _conv("r2plus1d layer 1 time", _R2PLUS1D, (8, 16, 56, 56, 144), (3, 1, 1, 144, 64)),
    _conv("video_gen level 1 time", _VIDEO_GEN, (4, 16, 16, 16, 128), (3, 1, 1, 128, 128)),
)


def _fused(name: str, model: str, x: tuple[int, ...], kernel: tuple[int, ...]) -> Case:
    return Case(name, model, "conv_bias_act_pool", (x, kernel, kernel[-1:]), {"activation": "relu", "window": (2, 2)})


FUSED = (
    _fused("cnn_2d block 1", _CNN_2D, (16, 224, 224, 3), (3, 3, 3, 32)),
    _fused("cnn_2d block 2", _CNN_2D, (16, 112, 112, 32), (3, 3, 32, 64)),
    _fused("cnn_2d block 3", _CNN_2D, (16, 56, 56, 64), (3, 3, 64, 128)),
)

CASES = STEMS + CONV_2D + CONV_3D + FUSED
