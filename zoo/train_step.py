"""The training state, and the two programs that a run consists of: an optimizer step and an evaluation step."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from zoo.configs import TrainConfig
from zoo.data.loader import Batch
from zoo.fine_tuning import learning_shares
from zoo.optimizers import dotted, make_optimizer
from zoo.parallel import Parallel
from zoo.random_parts import part_of
from zoo.tasks import Task

State = dict[str, Any]
"""params, batch_stats, average (of the parameters), optimizer, step: everything that a checkpoint holds."""


def optimizer_for(config: TrainConfig, model: nnx.Module, data: Any) -> optax.GradientTransformation:
    """The config's optimizer, whose parts learn as fast as it says; `data` tells the shape of a batch."""
    item = data[0] if config.layer_decay < 1 else {}
    shape = next(((config.batch_size, *item[name].shape) for name in ("video", "image") if name in item), ())
    return make_optimizer(config, learning_shares(config, model, shape))


def make_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, *, frozen: bool = False
) -> tuple[nnx.GraphDef, State, nnx.State]:
    """The network's structure, a fresh training state, and its random state, which each step seeds anew.

    `frozen` leaves the batch statistics as they are.
    """
    model.train()
    if frozen:
        model.set_attributes(use_running_average=True, raise_if_not_found=False)
    graph, params, batch_stats, random = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    state = {
        "params": params,
        "batch_stats": batch_stats,
        "average": jax.tree.map(jnp.copy, params),  # a copy: donated buffers may not be shared
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
    }
    return graph, state, random


def make_train_step(
    config: TrainConfig,
    task: Task,
    optimizer: Any,
    graph: nnx.GraphDef,
    random: nnx.State,
    frozen: Collection[str],
    parallel: Parallel,
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """One optimizer step, (state, batch) to (state, figures), for `parallel.lower`."""
    seed = jax.random.key(config.seed)
    compute_dtype = jnp.dtype(config.compute_dtype)

    def stopped(params: nnx.State) -> nnx.State:
        """No gradient is computed for what does not learn."""
        return jax.tree_util.tree_map_with_path(
            lambda path, value: jax.lax.stop_gradient(value) if dotted(path) in frozen else value, params
        )

    def own_rows(key: jax.Array) -> jax.Array:
        return part_of(key, jax.lax.axis_index(parallel.axis), parallel.parts)

    def of_own_rows(path: Any, variable: nnx.Variable) -> nnx.Variable:
        del path
        return variable.replace(own_rows(variable.get_value())) if isinstance(variable, nnx.RngKey) else variable

    def drawn_anew(key: jax.Array) -> nnx.State:
        """The network's own random state, which is dropout's: each layer draws by itself, and otherwise each time."""
        number = jax.random.bits(key)

        def folded(path: Any, variable: nnx.Variable) -> nnx.Variable:
            del path
            is_key = isinstance(variable, nnx.RngKey)
            return variable.replace(jax.random.fold_in(variable.get_value(), number)) if is_key else variable

        return nnx.map_state(folded, random)

    def loss(params: nnx.State, batch_stats: nnx.State, streams: nnx.State, batch: Any, key: jax.Array):
        # Casting inside the loss leaves parameters, gradients and batch statistics in float32.
        cast = jax.tree.map(lambda value: value.astype(compute_dtype), params)
        model = nnx.merge(graph, stopped(cast), batch_stats, streams, copy=True)
        if parallel.axis:  # else one program over the whole mesh sees the whole batch
            together = {"axis_name": parallel.axis, "axis_index_groups": parallel.batch_norm_groups}
            model.set_attributes(nnx.BatchNorm, **together, raise_if_not_found=False)
        value, figures = task.loss(model, batch, key)
        return value, (figures, nnx.state(model, nnx.BatchStat))

    if config.remat == "products":
        loss = jax.checkpoint(loss, policy=_is_product)

    def gradients_of(params: nnx.State, batch_stats: nnx.State, batch: Any, key: jax.Array, progress: jax.Array):
        """Gradients, batch statistics and figures of what one device sees of a batch, or of a part of one."""
        streams = drawn_anew(key)
        if parallel.axis:
            key, streams = own_rows(key), nnx.map_state(of_own_rows, streams)
        told = {**batch, "progress": progress}
        (value, (figures, batch_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, batch_stats, streams, told, key
        )
        return gradients, batch_stats, {"loss": value, **figures}

    def accumulated(params: nnx.State, batch_stats: nnx.State, batch: Any, key: jax.Array, progress: jax.Array):
        """As `gradients_of`, one part of the batch after the other; each has noise of its own."""
        parts = config.accumulate
        # Every so many-th example is a part: of it each device has an equal share of its own rows.
        split = {name: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1) for name, rows in batch.items()}

        def add(carry: Any, part: Any) -> tuple[Any, Any]:
            total, batch_stats = carry
            number, rows = part
            noise = jax.random.fold_in(key, number)
            gradients, batch_stats, figures = gradients_of(params, batch_stats, rows, noise, progress)
            return (jax.tree.map(jnp.add, total, gradients), batch_stats), figures

        start = jax.tree.map(jnp.zeros_like, params), batch_stats
        (total, batch_stats), figures = jax.lax.scan(add, start, (jnp.arange(parts), split))
        mean = functools.partial(jnp.mean, axis=0)
        return jax.tree.map(lambda sum_: sum_ / parts, total), batch_stats, jax.tree.map(mean, figures)

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        find = gradients_of if config.accumulate == 1 else accumulated
        gradients, batch_stats, figures = find(
            state["params"],
            state["batch_stats"],
            batch,
            jax.random.fold_in(seed, state["step"]),
            state["step"] / config.steps,
        )
        if parallel.axis:
            # A bfloat16 product's gradient has no more digits than that: half the bytes go over the links, as by jit.
            dtype = compute_dtype if config.accumulate == 1 else jnp.float32
            told = jax.tree.map(lambda gradient: gradient.astype(dtype), gradients)
            told, figures = jax.lax.pmean((told, figures), parallel.axis)
            gradients = jax.tree.map(lambda mean, own: mean.astype(own.dtype), told, gradients)
        if parallel.batch_norm_groups:
            batch_stats = jax.lax.pmean(batch_stats, parallel.axis)
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        step = state["step"] + 1
        # While there are few steps to average, the average follows faster.
        decay = jnp.minimum(config.ema_decay, step / (step + 10))
        # In this form what does not change stays the same to the bit.
        average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state["average"], params)
        new_state = {
            "params": params,
            "batch_stats": batch_stats,
            "average": average,
            "optimizer": optimizer_state,
            "step": step,
        }
        return new_state, figures | {"gradient_norm": optax.tree.norm(gradients)}

    return train_step


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("dot_general", "conv_general_dilated")


def make_evaluate_step(task: Task, graph: nnx.GraphDef, random: nnx.State, parallel: Parallel):
    """For each figure its sum over a held-out batch under the averaged parameters, and how many items that is of.

    Beside them what the task wants of all items together, and which items of the batch count. It is one program over
    the whole mesh, however the training step is split.
    """

    @functools.partial(jax.jit, out_shardings=parallel.whole)
    def evaluate_step(params, batch_stats, batch: Batch, key: jax.Array) -> tuple[dict[str, Any], Any, Any]:
        model = nnx.merge(graph, params, batch_stats, random, copy=True)
        model.eval()
        weight = batch["weight"]
        figures = dict(task.evaluate(model, batch, key))
        answers = figures.pop("answers", None)
        sums = {}
        for name, figure in figures.items():
            values, concerned = figure if isinstance(figure, tuple) else (figure, 1.0)
            sums[name] = jnp.sum(values * weight * concerned), jnp.sum(weight * concerned)
        return sums, answers, weight

    return evaluate_step
