"""Training: `python -m zoo.train --model video_gen`. One loop, read from top to bottom in `train`.

A run lives in a folder of its own under runs/: config.json, checkpoints/, metrics.jsonl, TensorBoard scalars,
curves.png and whatever the task shows. `--resume` goes on from its last checkpoint, to the bit.
"""

import contextlib
import functools
import math
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo import command_line, hub, registry, run_log
from zoo.configs import TrainConfig
from zoo.data import loader, open_dataset
from zoo.errors import UserError
from zoo.fine_tuning import frozen_by, head_of, learning_shares
from zoo.optimizers import dotted, make_optimizer
from zoo.run_checkpoints import RunCheckpoints
from zoo.tasks import TASKS, Task
from zoo.train_arguments import Arguments, requested_run

State = dict[str, Any]
"""params, batch_stats, average (of the parameters), optimizer, step: everything that a checkpoint holds."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo train")
    hub.use_compilation_cache()
    config, folder = requested_run(arguments)
    train(config, folder)


def train(config: TrainConfig, folder: Path) -> State:
    """Trains from the folder's last checkpoint, or from the start, to `config.steps`; returns the last state.

    Raises:
      UserError: the data set is of another kind, the loss is no longer a number, or the disk is full; the last good
        checkpoint stays.
      SystemExit: SIGINT or SIGTERM came; all is saved.
    """
    sources = [open_dataset(config.dataset, split, **config.dataset_options) for split in ("train", "test")]
    task, item = TASKS[config.task](**config.task_options), sources[0][0]
    if missing := [name for name in task.needs if name not in item]:
        has, lacks = ", ".join(item), ", ".join(missing)
        raise UserError(f"{config.dataset} has {has}, and no {lacks} for {config.task}; take another data set")
    task, data, held_out = task.prepared(*sources)
    batches = loader.training_batches(data, config.batch_size, config.seed, config.sampler, config.workers)

    model = registry.create(config.model, seed=config.seed, **config.model_options(data.num_classes))
    for path, name in config.start.items():
        card = registry.card(name)
        is_other = not path and card.options.get("num_classes") != data.num_classes
        hub.start_from(model, path, card, leave_out=head_of(config.model, config.options) if is_other else ())
    optimizer = optimizer_for(config, model, data)
    graph, state, random = make_state(model, optimizer, frozen=bool(config.freeze))
    train_step = make_train_step(config, task, optimizer, graph, random, frozen_by(config, model))
    evaluate_step = make_evaluate_step(task, graph, random)

    _make_folder(config, folder)
    noted = [folder / "unreadable.txt", folder / "unreadable_test.txt"]
    for source, file in zip((data, held_out), noted, strict=True):
        if hasattr(source, "unreadable"):
            source.unreadable.write_to(file)
    checkpoints, best = RunCheckpoints(folder / "checkpoints"), RunCheckpoints(folder / "best")
    state, loader_state = checkpoints.restore(state)
    if loader_state is not None:
        batches.set_state(loader_state)

    first_step = int(state["step"])
    pending: list[dict[str, jax.Array]] = []
    shown: list[Path] = []
    clock, frames = time.monotonic(), 0
    log = run_log.RunLog(folder, first_step, config.steps)
    with contextlib.closing(batches), log, StopRequest() as stop:
        log.say(f"{config.model} on {config.dataset}: {_count(state['params']):,} parameters, run folder {folder}")
        for step in range(first_step + 1, config.steps + 1):
            batch = next(batches)
            state, figures = train_step(state, batch)
            pending.append(figures)
            frames += _frames(batch)
            last = step == config.steps
            log.advance(step)

            if step % config.log_every == 0 or last or stop.requested:
                figures = _mean_if_finite(pending, step, config)
                pending.clear()
                now = time.monotonic()
                log.write(step, "train", figures | {"frames_per_second": frames / (now - clock)})
                clock, frames = now, 0
            if step % config.checkpoint_every == 0 or last or stop.requested:
                _mean_if_finite(pending, step, config)
                checkpoints.save(step, state, batches.get_state())
            if stop.requested and not last:
                checkpoints.wait()
                log.say(f"stopped at step {step}, all saved; go on with: {_resume_command(config, folder)}")
                raise SystemExit(128 + stop.requested)
            if step % config.evaluate_every == 0 or last:
                log.write(step, "test", _evaluate(config, task, evaluate_step, state, held_out))
                averaged = nnx.merge(graph, state["average"], state["batch_stats"], random, copy=True)
                averaged.eval()
                shown = task.show(averaged, folder, step, jax.random.key(config.seed))
                run_log.draw_curves(folder)
                clock, frames = time.monotonic(), 0
                if config.patience:
                    best_step, is_over = run_log.best_evaluation(folder, config.patience)
                    if best_step == step:
                        best.save(step, state, batches.get_state())
                    if is_over:
                        log.say(f"stopped at step {step}: no test loss since step {best_step} was smaller")
                        checkpoints.save(step, state, batches.get_state())
                        break
        checkpoints.wait()
        best.wait()
        for path in [*shown, folder / "curves.png", folder / "checkpoints"]:
            log.say(f"wrote {path}")
        for path in filter(Path.exists, noted):
            log.say(f"passed over {len(path.read_text(encoding='utf-8').splitlines())} videos, which {path} names")
    return state


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
    frozen: Collection[str] = (),
):
    """One compiled optimizer step: (state, batch) to (state, figures). The state's buffers are donated."""
    seed = jax.random.key(config.seed)
    compute_dtype = jnp.dtype(config.compute_dtype)

    def stopped(params: nnx.State) -> nnx.State:
        """No gradient is computed for what does not learn."""
        return jax.tree_util.tree_map_with_path(
            lambda path, value: jax.lax.stop_gradient(value) if dotted(path) in frozen else value, params
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: State, batch: loader.Batch) -> tuple[State, dict[str, jax.Array]]:
        def loss(params):
            # Casting inside the loss leaves parameters, gradients and batch statistics in float32.
            cast = jax.tree.map(lambda value: value.astype(compute_dtype), params)
            model = nnx.merge(graph, stopped(cast), state["batch_stats"], random, copy=True)
            told = {**batch, "progress": state["step"] / config.steps}
            value, figures = task.loss(model, told, jax.random.fold_in(seed, state["step"]))
            return value, (figures, nnx.state(model, nnx.BatchStat))

        (value, (figures, batch_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(state["params"])
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
        return new_state, {"loss": value, **figures, "gradient_norm": optax.tree.norm(gradients)}

    return train_step


def make_evaluate_step(task: Task, graph: nnx.GraphDef, random: nnx.State):
    """For each figure its sum over a held-out batch under the averaged parameters, and how many items that is of.

    Beside them what the task wants of all items together.
    """

    @jax.jit
    def evaluate_step(params, batch_stats, batch: loader.Batch, key: jax.Array) -> tuple[dict[str, Any], Any]:
        model = nnx.merge(graph, params, batch_stats, random, copy=True)
        model.eval()
        weight = batch["weight"]
        figures = dict(task.evaluate(model, batch, key))
        answers = figures.pop("answers", None)
        sums = {}
        for name, figure in figures.items():
            values, concerned = figure if isinstance(figure, tuple) else (figure, 1.0)
            sums[name] = jnp.sum(values * weight * concerned), jnp.sum(weight * concerned)
        return sums, answers

    return evaluate_step


def _evaluate(config: TrainConfig, task: Any, evaluate_step, state: State, held_out: Any) -> dict[str, float]:
    """Mean figures over the held-out items, and those of all of them: the same items and noise every time."""
    sums: dict[str, tuple[jax.Array, ...]] = {}
    answers = []
    for i, batch in enumerate(loader.evaluation_batches(held_out, config.batch_size, config.evaluation_items)):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        figures, its_answers = evaluate_step(state["average"], state["batch_stats"], batch, key)
        sums = jax.tree.map(jnp.add, sums, figures) if sums else figures
        answers.append(jax.tree.map(lambda values, counts=batch["weight"] > 0: np.asarray(values)[counts], its_answers))
    means = {name: float(total) / float(items) for name, (total, items) in sums.items() if items > 0}
    if answers[0] is None:
        return means
    return means | task.over_all(jax.tree.map(lambda *parts: np.concatenate(parts), *answers))


def _mean_if_finite(pending: list[dict[str, jax.Array]], last_step: int, config: TrainConfig) -> dict[str, float]:
    """Means over the steps since the last look.

    Raises:
      UserError: a loss is not a number; it names the first such step and its batch. Nothing was saved since.
    """
    rows = jax.device_get(pending)
    for step, row in enumerate(rows, last_step - len(rows) + 1):
        if not np.isfinite(row["loss"]):
            raise UserError(
                f"the loss is {row['loss']} at step {step}, on batch {step} of {config.dataset} (seed {config.seed}, "
                f"{config.batch_size} a batch); the last good checkpoint stays; try a smaller --learning-rate"
            )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _frames(batch: loader.Batch) -> int:
    if "video" in batch:
        return math.prod(batch["video"].shape[:2])
    return len(next(iter(batch.values())))


def _count(params: nnx.State) -> int:
    return sum(parameter.size for parameter in jax.tree.leaves(params))


class StopRequest:
    """Context in which SIGINT and SIGTERM only set `requested`, so that the loop can save between two steps.

    A second signal acts at once.
    """

    def __init__(self) -> None:
        self.requested = 0

    def __enter__(self) -> "StopRequest":
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def _note(self, number: int, frame: Any) -> None:
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _make_folder(config: TrainConfig, folder: Path) -> None:
    """Makes a new run's folder, once all else that may fail at the start has not; a resumed run has one."""
    if (folder / "config.json").exists():
        return
    try:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    except OSError as error:
        reason = f"cannot make the run's folder {folder}: {error.strerror}"
        raise UserError(f"{reason}; choose another place with --runs") from error


def _resume_command(config: TrainConfig, folder: Path) -> str:
    return f"python -m zoo.train --model {config.model} --resume {folder}"


if __name__ == "__main__":
    command_line.run("zoo train", main)
