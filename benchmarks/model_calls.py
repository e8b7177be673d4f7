"""What the zoo's models ask of `zoo.kernels`: each is traced, not run, with an input of the size it is made for."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import zoo
from benchmarks.kernel_rows import passes
from zoo import kernels
from zoo.kernels import dispatch
from zoo.kernels.conv_lstm.cases import CASES as CONV_LSTM

# For each model the options it is created with, and the shapes of its arguments without the batch.
INPUTS: Mapping[str, tuple[Mapping[str, Any], tuple[tuple[int, ...], ...]]] = {
    "i3d": ({}, ((16, 224, 224, 3),)),
    "r3d_18": ({}, ((16, 112, 112, 3),)),
    "mc3_18": ({}, ((16, 112, 112, 3),)),
    "r2plus1d_18": ({}, ((16, 112, 112, 3),)),
    "cnn_2d": ({}, ((16, 224, 224, 3),)),
    "cnn_lstm": ({}, ((16, 224, 224, 3),)),
    "video_gen": ({}, ((8, 32, 32, 1), (), (10,))),
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
            before = found[part, key].models if (part, key) in found else ()
            models = before if model in before else (*before, model)
            found[part, key] = ModelCall(part, tuple(of_part), every, key, kind, models)
    return [found[name] for name in sorted(found)]


def _heard_of_model(model: str, dtype: str, batch: int) -> list[dispatch.Heard]:
    options, shapes = INPUTS[model]
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape in shapes]
    abstract = nnx.eval_shape(lambda: zoo.create(model, **options))
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
            jax.eval_shape(functools.partial(kernels.conv_lstm, implementation="rewritten"), *shapes)
    return heard


def _as(leaf: Any, dtype: str) -> Any:
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, dtype) if is_float else leaf
