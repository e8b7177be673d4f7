"""The networks that are timed against PyTorch's: how ours are made, their inputs, and where PyTorch's arrays go.

PyTorch's side of each is in `torch_peer/networks.py`, under the same name.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from zoo import kernels
from zoo.convert import Row, as_is
from zoo.convert.pytorch import kernel

CLASSES = 400
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class ConvLSTM(nnx.Module):
    """One layer over `[B, T, H, W, C]`, the hidden states of all steps."""

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        shape = (3, 3, channels + features, 4 * features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(4 * features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return kernels.conv_lstm(x, self.kernel[...], self.bias[...])[0]


@dataclass(frozen=True)
class Pair:
    """`table` leads from the names of PyTorch's arrays to ours; a training step has `labels`, or lessens squares."""

    create: Callable[[], Any]
    shapes: tuple[tuple[int, ...], ...]
    table: Sequence[Row]
    labels: bool = True


def _unit(conv: str, norm: str, ours: str) -> list[Row]:
    names = [(rf"{norm}\.{theirs}", f"{ours}.norm.{name}", as_is) for theirs, name in _NORM.items()]
    return [(rf"{conv}\.weight", f"{ours}.conv.kernel", kernel), *names]


def _dense(theirs: str, ours: str) -> list[Row]:
    return [(rf"{theirs}\.weight", f"{ours}.kernel", kernel), (rf"{theirs}\.bias", f"{ours}.bias", as_is)]


def _resnet18() -> list[Row]:
    rows = _unit(r"frame_cnn\.conv1", r"frame_cnn\.bn1", "cnn.stem")
    for block in range(8):
        theirs, ours = rf"frame_cnn\.layer{block // 2 + 1}\.{block % 2}", f"cnn.blocks.{block}"
        rows += _unit(rf"{theirs}\.conv1", rf"{theirs}\.bn1", f"{ours}.units.0")
        rows += _unit(rf"{theirs}\.conv2", rf"{theirs}\.bn2", f"{ours}.units.1")
        rows += _unit(rf"{theirs}\.downsample\.0", rf"{theirs}\.downsample\.1", f"{ours}.shortcut")
    return rows


def _mobilenet_v2() -> list[Row]:
    ends = {0: "stem", 18: "head"}
    rows = [
        row
        for index, ours in ends.items()
        for row in _unit(rf"frame_cnn\.features\.{index}\.0", rf"frame_cnn\.features\.{index}\.1", f"cnn.{ours}")
    ]
    for block in range(17):
        theirs, ours = rf"frame_cnn\.features\.{block + 1}\.conv", f"cnn.blocks.{block}"
        names = ("expand", "depthwise", "project") if block else ("depthwise", "project")
        for index, name in enumerate(names[:-1]):
            rows += _unit(rf"{theirs}\.{index}\.0", rf"{theirs}\.{index}\.1", f"{ours}.{name}")
        last = len(names) - 1
        rows += _unit(rf"{theirs}\.{last}", rf"{theirs}\.{last + 1}", f"{ours}.project")
    return rows


_LSTM: list[Row] = [
    (r"lstm\.weight_ih_l0", "sequence.recurrent.forward.0.cell.dense_i.kernel", kernel),
    (r"lstm\.weight_hh_l0", "sequence.recurrent.forward.0.cell.dense_h.kernel", kernel),
    (r"lstm\.bias_hh_l0", "sequence.recurrent.forward.0.cell.dense_h.bias", as_is),
    *_dense("head", "sequence.head"),
]


def _video_resnet(*, factorised: bool) -> list[Row]:
    rows = _unit(r"stem\.0", r"stem\.1", "stem.units.0") + _dense("fc", "logits")
    if factorised:
        rows += _unit(r"stem\.3", r"stem\.4", "stem.units.1")
    for block in range(8):
        theirs, ours = rf"layer{block // 2 + 1}\.{block % 2}", f"blocks.{block}"
        for index, name in enumerate(("first", "second"), 1):
            conv, norm = rf"{theirs}\.conv{index}\.0", rf"{theirs}\.conv{index}\.1"
            if factorised:
                rows += _unit(rf"{conv}\.0", rf"{conv}\.1", f"{ours}.{name}.space")
                rows += _unit(rf"{conv}\.3", norm, f"{ours}.{name}.time")
            else:
                rows += _unit(conv, norm, f"{ours}.{name}")
        rows += _unit(rf"{theirs}\.downsample\.0", rf"{theirs}\.downsample\.1", f"{ours}.shortcut")
    return rows


def _pointwise(array: np.ndarray) -> np.ndarray:
    """A convolution of one pixel to a dense layer."""
    return array.reshape(array.shape[:2]).T


def _in_space(array: np.ndarray) -> np.ndarray:
    """A convolution of one frame in 3D to one in 2D."""
    return kernel(array)[0]


_I3D: list[Row] = [*_unit(r"(.*)\.conv", r"(.*)\.norm", r"\1"), *_dense("logits", "logits")]
_CONV_LSTM: list[Row] = [(r"conv\.weight", "kernel", kernel), (r"conv\.bias", "bias", as_is)]
_VIDEO_GEN: list[Row] = [
    (r"(.*norm)\.weight", r"\1.scale", as_is),
    (r"(stem|head|.*\.conv_in)\.weight", r"\1.kernel", _in_space),
    (r"(merge\..*|.*\.shortcut)\.weight", r"\1.kernel", _pointwise),
    *_dense("(time_in|time_out|class_in)", r"condition.\1"),
    *_dense(r"(.*)\.(expand|contract)", r"\1.perceptron.\2"),
    *_dense("(.*)", r"\1"),
]


def _cnn_lstm(frame_cnn: str) -> Callable[[], Any]:
    # Dropout is left out on both sides, here as everywhere: two frameworks never drop the same.
    return partial(zoo.create, "cnn_lstm", frame_cnn=frame_cnn, num_classes=CLASSES, dropout=0.0)


_FRAMES, _CLIP = (1, 16, 112, 112, 3), (1, 16, 224, 224, 3)
_DENOISED = ((8, 8, 32, 32, 1), (8,), (8, 10), (8, 8))

# A clip at a time, which is what people try on a CPU; the generator with the batch that it is trained with, and the
# ConvLSTM with four sequences, as both are hardly seen alone.
PAIRS: Mapping[str, Pair] = {
    "mobilenet_v2_lstm": Pair(_cnn_lstm("mobilenet_v2"), (_FRAMES,), _mobilenet_v2() + _LSTM),
    "resnet18_lstm": Pair(_cnn_lstm("resnet18"), (_FRAMES,), _resnet18() + _LSTM),
    "r2plus1d_18": Pair(partial(zoo.create, "r2plus1d_18"), (_FRAMES,), _video_resnet(factorised=True)),
    "r3d_18": Pair(partial(zoo.create, "r3d_18"), (_FRAMES,), _video_resnet(factorised=False)),
    "i3d": Pair(partial(zoo.create, "i3d"), (_CLIP,), _I3D),
    "conv_lstm": Pair(lambda: ConvLSTM(64, 64, rngs=nnx.Rngs(0)), ((4, 10, 64, 64, 64),), _CONV_LSTM, labels=False),
    "video_gen": Pair(partial(zoo.create, "video_gen"), _DENOISED, _VIDEO_GEN, labels=False),
}


def inputs(pair: Pair) -> dict[str, np.ndarray]:
    """The operands in order, as "0", "1", ..., drawn from their places; and the labels of a training step."""
    arrays: dict[str, np.ndarray] = {}
    for place, shape in enumerate(pair.shapes):
        draw = np.random.RandomState(place)
        # What is no video is a time or a share, from 0 to 1.
        array = draw.standard_normal(shape) if len(shape) > 2 else draw.uniform(size=shape)
        arrays[str(place)] = array.astype(np.float32)
    if pair.labels:
        arrays["labels"] = np.arange(pair.shapes[0][0], dtype=np.int64) % CLASSES
    return arrays


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Arrays that depend on their PyTorch names and shapes alone, and keep activations of order one."""
    arrays = {}
    for name, shape in shapes.items():
        draw = np.random.RandomState(zlib.crc32(name.encode()))  # the one generator whose stream NumPy keeps for good
        if len(shape) > 1:
            array = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "weight")):
            array = draw.uniform(0.5, 1.5, shape)
        else:
            array = draw.standard_normal(shape) * 0.2
        arrays[name] = array.astype(np.float32)
    return arrays
