"""A published network on other classes: what its head is, what stays as it is, and how fast which layer learns."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Literal

from zoo import kernels, registry
from zoo.configs import TrainConfig
from zoo.errors import UserError
from zoo.optimizers import dotted

CLIPS = {
    "num_frames": 16,
    "frame_rate": 8.0,
    "max_clips": 1,
    "resize_short": 128,
    "crop": 112,
    "interpolation": "bilinear",
    "mean": 127.5,
    "std": 127.5,
}
"""What a network that starts from nothing sees."""


TASKS = ("classification", "embedding")
"""What any architecture can learn from labelled videos; embedding takes no notice of the labels."""


def fine_tuning(
    arch: str, dataset: str, init: str | None, data: str | None, task: str = "classification"
) -> TrainConfig:
    """The experiment that trains an architecture on labelled videos.

    Args:
      dataset, data: as `zoo.data.labelled_videos` takes them.
      init: what the network starts from: a published model, or what follows `<arch>_` in its name; None for nothing.
      task: one of `TASKS`.

    Raises:
      UserError: no such published model, or one of another architecture, or no such task.
    """
    if task not in TASKS:
        raise registry.unknown("task on labelled videos", task, TASKS)
    options, sees, start = {}, CLIPS, {}
    if init is not None:
        name = init if init in registry.list_models() else f"{arch}_{init}"
        card = registry.card(name)
        if card.arch != arch:
            raise UserError(f"{name} is a {card.arch}, from which no {arch} can start; give --model {card.arch}")
        options = {key: value for key, value in card.options.items() if key != "num_classes"}
        sees, start = card.preprocessing, {"": name}
    return TrainConfig(
        model=arch,
        options=options,
        start=start,
        task=task,
        task_options={"mean": sees["mean"], "std": sees["std"]},
        dataset=dataset,
        dataset_options={"preprocessing": dict(sees)} | ({"data": data} if data else {}),
        steps=300,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=1e-2,
        ema_decay=0.99,
        evaluate_every=50,
        checkpoint_every=50,
    )


def head_of(arch: str, options: Mapping[str, Any]) -> frozenset[str]:
    """Paths of the parameters whose shape depends on the number of classes.

    Raises:
      UserError: none does.
    """

    def shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
        model = nnx.eval_shape(lambda: registry.create(arch, **{**options, "num_classes": num_classes}))
        return {path: leaf.shape for path, leaf in _parameters(model)}

    few, more = shapes(7), shapes(8)
    head = frozenset(path for path, shape in few.items() if more[path] != shape)
    if not head:
        raise UserError(f"{arch} has no head: nothing in it depends on the number of classes")
    return head


def frozen_by(config: TrainConfig, model: nnx.Module) -> frozenset[str]:
    """Paths of the parameters that do not learn: all but the head's with `freeze` "trunk", else those of the part.

    Raises:
      UserError: the network has no such part.
    """
    if not config.freeze:
        return frozenset()
    paths = [path for path, _ in _parameters(model)]
    if config.freeze == "trunk":
        return frozenset(paths) - head_of(config.model, config.options)
    found = frozenset(path for path in paths if path.startswith(f"{config.freeze}."))
    if not found:
        raise registry.unknown(f"part of {config.model}", config.freeze, {path.partition(".")[0] for path in paths})
    return found


def learning_shares(config: TrainConfig, model: nnx.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """Which share of the learning rate each parameter has, by its path; empty if all have all of it.

    What is frozen has none. With `layer_decay` below 1 each layer has so much less than the layer behind it, layers
    being told by the order in which a pass uses their kernels.

    Args:
      shape: of the network's input, with the batch.
    """
    shares = {}
    if config.layer_decay < 1:
        depths = _depths(model, shape)
        last = max(depths.values())
        shares = {path: config.layer_decay ** (last - depth) for path, depth in depths.items()}
    return shares | dict.fromkeys(frozen_by(config, model), 0.0)


def _parameters(model: nnx.Module) -> list[tuple[str, jax.Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    return [(dotted(path), leaf) for path, leaf in leaves]


def _depths(model: nnx.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """How many kernels are used before each parameter in a pass over an input of this shape, itself counted."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    with kernels.prefer("xla"):  # one operation a layer, in the order of the layers
        traced = jax.make_jaxpr(lambda params, x: nnx.merge(graph, params, rest, copy=True)(x))(
            params, jax.ShapeDtypeStruct(shape, jnp.float32)
        )
    first: dict[Any, int] = {}
    for index, equation in enumerate(traced.jaxpr.eqns):
        for variable in equation.invars:
            if not isinstance(variable, Literal):
                first.setdefault(variable, index)
    uses = [first.get(variable, -1) for variable in traced.jaxpr.invars[:-1]]
    parameters = _parameters(model)
    kernels_at = sorted(use for use, (_, leaf) in zip(uses, parameters, strict=True) if leaf.ndim > 1)
    return {path: sum(at <= use for at in kernels_at) for use, (path, _) in zip(uses, parameters, strict=True)}
