"""Training: `python -m zoo.train --model video_gen`. One loop, read from top to bottom in `train`.

A run lives in a folder of its own under runs/: config.json, checkpoints/, metrics.jsonl, TensorBoard scalars,
curves.png and whatever the task shows. `--resume` goes on from its last checkpoint, to the bit.
"""

import dataclasses
import datetime
import functools
import math
import signal
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo import command_line, configs, hub, registry, run_log
from zoo.configs import TrainConfig
from zoo.data import loader, open_dataset
from zoo.errors import UserError
from zoo.run_checkpoints import RunCheckpoints
from zoo.tasks import TASKS, Task

State = dict[str, Any]
"""params, batch_stats, average (of the parameters), optimizer, step: everything that a checkpoint holds."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains a model and shows how it learns."""

    model: str | None = None
    """What to train: cnn_2d, lstm, video_gen."""
    config: str | None = None
    """An experiment in zoo/configs, such as cnn_lstm_motion; without it the one that is called like the model."""
    preset: str = "default"
    """A preset of the experiment."""
    dataset: str | None = None
    """Another data set than the experiment's: digits, moving_digits or tfds:NAME."""
    steps: int | None = None
    """Optimizer steps."""
    batch_size: int | None = None
    """Clips or images a step."""
    learning_rate: float | None = None
    """The peak learning rate."""
    compute_dtype: str | None = None
    """float32 or bfloat16; parameters stay float32."""
    seed: int | None = None
    """Of parameters, data order, noise and dropout."""
    resume: Path | None = None
    """Folder of a run to go on with, under the settings that it was begun with."""
    runs: Path = Path("runs")
    """Where the new run's folder is made."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo train")
    hub.use_compilation_cache()
    config, folder = _resumed_run(arguments, arguments.resume) if arguments.resume else _new_run(arguments)
    train(config, folder)


def train(config: TrainConfig, folder: Path) -> State:
    """Trains from the folder's last checkpoint, or from the start, to `config.steps`; returns the last state.

    Raises:
      UserError: the loss is no longer a number, or the disk is full; the last good checkpoint stays.
      SystemExit: SIGINT or SIGTERM came; all is saved.
    """
    task = TASKS[config.task](**config.task_options)
    data = task.prepared(open_dataset(config.dataset, "train", **config.dataset_options))
    held_out = task.prepared(open_dataset(config.dataset, "test", **config.dataset_options))
    batches = loader.training_batches(data, config.batch_size, config.seed)

    model = registry.create(config.model, seed=config.seed, **{"num_classes": data.num_classes} | config.options)
    for path, name in config.start.items():
        hub.start_from(model, path, registry.card(name))
    optimizer = make_optimizer(config)
    graph, state, random = make_state(model, optimizer)
    train_step = make_train_step(config, task, optimizer, graph, random)
    evaluate_step = make_evaluate_step(task, graph, random)

    _make_folder(config, folder)
    checkpoints = RunCheckpoints(folder / "checkpoints")
    state, loader_state = checkpoints.restore(state)
    if loader_state is not None:
        batches.set_state(loader_state)

    first_step = int(state["step"])
    pending: list[dict[str, jax.Array]] = []
    shown: list[Path] = []
    clock, frames = time.monotonic(), 0
    with run_log.RunLog(folder, first_step, config.steps) as log, StopRequest() as stop:
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
                log.write(step, "test", _evaluate(config, evaluate_step, state, held_out))
                averaged = nnx.merge(graph, state["average"], state["batch_stats"], random, copy=True)
                averaged.eval()
                shown = task.show(averaged, folder, step, jax.random.key(config.seed))
                run_log.draw_curves(folder)
                clock, frames = time.monotonic(), 0
        checkpoints.wait()
        for path in [*shown, folder / "curves.png", folder / "checkpoints"]:
            log.say(f"wrote {path}")
    return state


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW or Muon under a linear warm-up and a cosine to zero.

    Raises:
      UserError: the config names another optimizer.
    """

    def schedule(peak: float) -> optax.Schedule:
        warmup = min(config.warmup_steps, max(1, config.steps // 4))
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps)

    if config.optimizer == "adamw":
        update = optax.adamw(schedule(config.learning_rate), b2=0.98, weight_decay=config.weight_decay)
    elif config.optimizer == "muon":
        update = optax.contrib.muon(
            schedule(config.learning_rate),
            weight_decay=config.weight_decay,
            adam_learning_rate=schedule(config.learning_rate * _ADAM_TO_MUON),
            muon_weight_dimension_numbers=_matrices,
        )
    else:
        raise UserError(f"no optimizer is called {config.optimizer!r}; there are adamw, muon")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


# Muon's updates have spectral norm one, Adam's entries are about one: vectors and thin matrices want smaller steps.
_ADAM_TO_MUON = 0.3
_SMALLEST_MATRIX_SIDE = 16


def _matrices(params: Any) -> Any:
    """Which parameters Muon takes, as matrices of all but the last axis by the last; the rest go to AdamW."""

    def dimensions(parameter: jax.Array) -> Any:
        thin = parameter.ndim < 2 or min(parameter.shape[-1], parameter.size // parameter.shape[-1])
        if parameter.ndim < 2 or thin < _SMALLEST_MATRIX_SIDE:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(parameter.ndim - 1)), parameter.ndim - 1)

    return jax.tree.map(dimensions, params)


def make_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> tuple[nnx.GraphDef, State, nnx.State]:
    """The network's structure, a fresh training state, and its random state, which each step seeds anew."""
    model.train()
    graph, params, batch_stats, random = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    state = {
        "params": params,
        "batch_stats": batch_stats,
        "average": jax.tree.map(jnp.copy, params),  # a copy: donated buffers may not be shared
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
    }
    return graph, state, random


def make_train_step(config: TrainConfig, task: Task, optimizer: Any, graph: nnx.GraphDef, random: nnx.State):
    """One compiled optimizer step: (state, batch) to (state, figures). The state's buffers are donated."""
    seed = jax.random.key(config.seed)
    compute_dtype = jnp.dtype(config.compute_dtype)

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state: State, batch: loader.Batch) -> tuple[State, dict[str, jax.Array]]:
        def loss(params):
            # Casting inside the loss leaves parameters, gradients and batch statistics in float32.
            cast = jax.tree.map(lambda value: value.astype(compute_dtype), params)
            model = nnx.merge(graph, cast, state["batch_stats"], random, copy=True)
            value, figures = task.loss(model, batch, jax.random.fold_in(seed, state["step"]))
            return value, (figures, nnx.state(model, nnx.BatchStat))

        (value, (figures, batch_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        step = state["step"] + 1
        # While there are few steps to average, the average follows faster.
        decay = jnp.minimum(config.ema_decay, step / (step + 10))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state["average"], params)
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
    """Sums of a held-out batch's figures under the averaged parameters, and how many items they are of."""

    @jax.jit
    def evaluate_step(params, batch_stats, batch: loader.Batch, key: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, params, batch_stats, random, copy=True)
        model.eval()
        weight = batch["weight"]
        figures = task.evaluate(model, batch, key)
        return {name: jnp.sum(values * weight) for name, values in figures.items()} | {"items": jnp.sum(weight)}

    return evaluate_step


def _evaluate(config: TrainConfig, evaluate_step, state: State, held_out: Any) -> dict[str, float]:
    """Mean figures over the held-out items: the same items and the same noise every time."""
    sums: dict[str, jax.Array] = {}
    for i, batch in enumerate(loader.evaluation_batches(held_out, config.batch_size, config.evaluation_items)):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        figures = evaluate_step(state["average"], state["batch_stats"], batch, key)
        sums = jax.tree.map(jnp.add, sums, figures) if sums else figures
    items = float(sums.pop("items"))
    return {name: float(value) / items for name, value in sums.items()}


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


def _new_run(arguments: Arguments) -> tuple[TrainConfig, Path]:
    given = {flag: value for flag in _FLAGS if (value := getattr(arguments, flag)) is not None}
    name = arguments.config or arguments.model
    if name is None:
        raise UserError(f"say what to train with --model or --config: {', '.join(configs.trainable())}")
    config = dataclasses.replace(configs.experiment(name, arguments.preset), **given)
    if arguments.config and arguments.model not in (None, config.model):
        raise UserError(f"--config {arguments.config} trains {config.model}, not {arguments.model}; leave out --model")
    config.check()
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = arguments.runs / f"{config.model}-{config.dataset.replace(':', '-').replace('/', '-')}-{started}"
    return config, folder


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


_FLAGS = {"dataset", "steps", "batch_size", "learning_rate", "compute_dtype", "seed"}


def _resumed_run(arguments: Arguments, folder: Path) -> tuple[TrainConfig, Path]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.json")
    config = TrainConfig.from_json(path.read_text(encoding="utf-8"))
    if arguments.model not in (None, config.model):
        raise UserError(f"{folder} is a run of {config.model}, not of {arguments.model}")
    for flag in sorted(_FLAGS):
        value = getattr(arguments, flag)
        if value is not None and value != getattr(config, flag):
            begun = f"{folder} was begun with {flag} {getattr(config, flag)}, which --resume keeps"
            raise UserError(f"{begun}; leave out --{flag.replace('_', '-')}")
    return config, folder


def _resume_command(config: TrainConfig, folder: Path) -> str:
    return f"python -m zoo.train --model {config.model} --resume {folder}"


if __name__ == "__main__":
    command_line.run("zoo train", main)
