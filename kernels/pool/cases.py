"""Where the models pool. Batches are those of the whole-model benchmark: I3D 4 clips of 16 frames, others 8 or 16."""

from ..case import Case

_I3D = "i3d 4x16x224x224"


def _same(name: str, model: str, shape: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...]) -> Case:
    return Case(name, model, "max_pool", (shape,), {"window": window, "strides": strides, "padding": "SAME"})


CASES = (
    _same("i3d pool 2a", _I3D, (4, 8, 112, 112, 64), (1, 3, 3), (1, 2, 2)),
    _same("i3d pool 3a", _I3D, (4, 8, 56, 56, 192), (1, 3, 3), (1, 2, 2)),
    _same("i3d mixed 3b branch 3", _I3D, (4, 8, 28, 28, 192), (3, 3, 3), (1, 1, 1)),
    _same("i3d mixed 3c branch 3", _I3D, (4, 8, 28, 28, 256), (3, 3, 3), (1, 1, 1)),
    _same("i3d pool 4a", _I3D, (4, 8, 28, 28, 480), (3, 3, 3), (2, 2, 2)),
    _same("i3d mixed 4b branch 3", _I3D, (4, 4, 14, 14, 480), (3, 3, 3), (1, 1, 1)),
    _same("i3d mixed 4c-4e branch 3", _I3D, (4, 4, 14, 14, 512), (3, 3, 3), (1, 1, 1)),
    _same("i3d mixed 4f branch 3", _I3D, (4, 4, 14, 14, 528), (3, 3, 3), (1, 1, 1)),
    _same("i3d pool 5a", _I3D, (4, 4, 14, 14, 832), (2, 2, 2), (2, 2, 2)),
    _same("i3d mixed 5b-5c branch 3", _I3D, (4, 2, 7, 7, 832), (3, 3, 3), (1, 1, 1)),
    Case("i3d last pool", _I3D, "avg_pool", ((4, 2, 7, 7, 1024),), {"window": (2, 7, 7), "strides": 1}),
    Case("cnn_2d pool 1", "cnn_2d 16x224x224", "max_pool", ((16, 224, 224, 32),), {"window": (2, 2)}),
    Case("cnn_2d pool 2", "cnn_2d 16x224x224", "max_pool", ((16, 112, 112, 64),), {"window": (2, 2)}),
    Case("cnn_2d pool 3", "cnn_2d 16x224x224", "max_pool", ((16, 56, 56, 128),), {"window": (2, 2)}),
    Case(
        "resnet stem pool",
        "resnet18 16x224x224",
        "max_pool",
        ((16, 112, 112, 64),),
        {"window": (3, 3), "strides": 2, "padding": ((1, 1), (1, 1))},
    ),
    _same("3x3 stride 2 of 56x56x128", "resnet-like blocks", (16, 56, 56, 128), (3, 3), (2, 2)),
)
