"""What the zoo's models ask of `zoo.kernels`: each is traced, not run, with an input of the size it is made for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import zoo
from benchmarks.kernel_rows import passes
from zoo import kernels
from zoo.kernels import dispatch
from zoo.kernels.conv_lstm.cases import CASES as CONV_LSTM

_CLIP, _SMALL_CLIP = (16, 224, 224, 3), (16, 112, 112, 3)

# No training asks for the gradient of a picture, and XLA takes minutes for that of I3D's stem on a CPU.
_PICTURE_CHANNELS = 3

# How each model is created, and the shapes of its arguments without the batch.
INPUTS: Mapping[str, tuple[Callable[[], Any], tuple[tuple[int, ...], ...]]] = {
    "i3d": (partial(zoo.create, "i3d"), (_CLIP,)),
    "r3d_18": (partial(zoo.create, "r3d_18"), (_SMALL_CLIP,)),
    "mc3_18": (partial(zoo.create, "mc3_18"), (_SMALL_CLIP,)),
    "r2plus1d_18": (partial(zoo.create, "r2plus1d_18"), (_SMALL_CLIP,)),
    "cnn_2d": (partial(zoo.create, "cnn_2d"), (_CLIP,)),
    "cnn_lstm": (partial(zoo.create, "cnn_lstm"), (_CLIP,)),
    "resnet18_lstm": (partial(zoo.create, "cnn_lstm", frame_cnn="resnet18"), (_SMALL_CLIP,)),
    "mobilenet_v2_lstm": (partial(zoo.create, "cnn_lstm", frame_cnn="mobilenet_v2"), (_SMALL_CLIP,)),
    "video_gen": (partial(zoo.create, "video_gen"), ((8, 32, 32, 1), (), (10,), (8,))),
}


@dataclass(frozen=True)
class ModelCall:
    """A forward pass or a gradient of a call, as `zoo.kernels.dispatch` runs it; `models` have it."""

    operation: str
    operands: tuple[jax.ShapeDtypeStruct, ...]
    options: Mapping[str, Any]
    key: str
    kind: str
    models: tuple[str, ...]


def model_calls(dtype: str, batch: int) -> list[ModelCall]:
    """Every call of every model in a training step, each once, by name."""
    heard = [(model, call) for model in INPUTS for call in _heard_of_model(model, dtype, batch)]
    heard += [("convlstm", call) for call in _heard_of_conv_lstms(dtype, batch)]
    found: dict[tuple[str, str], ModelCall] = {}
    for model, (operation, operands, options) in heard:
        if dispatch.OPERATIONS[operation].operands is None:
            continue  # what it is made of is measured
        key, kind = dispatch.describe(operands, options), dispatch.kind(operands, options)
        for _, part, of_part, every in passes(operation, operands, options):
            if part == "conv_input_gradient" and operands[0].shape[-1] <= _PICTURE_CHANNELS:
                continue
            before = found[part, key].models if (part, key) in found else ()
            models = before if model in before else (*before, model)
            found[part, key] = ModelCall(part, tuple(of_part), every, key, kind, models)
    return [found[name] for name in sorted(found)]


def _heard_of_model(model: str, dtype: str, batch: int) -> list[dispatch.Heard]:
    create, shapes = INPUTS[model]
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape in shapes]
    abstract = nnx.eval_shape(create)
    abstract.eval()
    graph, state = nnx.split(abstract)
    narrow = jax.tree.map(lambda leaf: _as(leaf, dtype), state)
    with dispatch.listening() as heard:
        jax.eval_shape(lambda state, *inputs: nnx.merge(graph, state)(*inputs), narrow, *inputs)
    return heard


def _heard_of_conv_lstms(dtype: str, batch: int) -> list[dispatch.Heard]:
    with dispatch.listening() as heard:
        for case in CONV_LSTM:
            (_, *sequence), *others = case.shapes
            shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((batch, *sequence), *others)]
            jax.eval_shape(partial(kernels.conv_lstm, implementation="rewritten"), *shapes)
    return heard


def _as(leaf: Any, dtype: str) -> Any:
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, dtype) if is_float else leaf
