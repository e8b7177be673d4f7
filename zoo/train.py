"""Training: `python -m zoo.train --model video_gen`. One loop, read from top to bottom in `train`.

A run lives in a folder of its own under runs/: config.json, checkpoints/, metrics.jsonl, TensorBoard scalars,
curves.png and whatever the task shows. `--resume` goes on from its last checkpoint, to the bit. Many processes run the
same loop, each on its own rows of every batch; what is for people comes from the first of them.
"""

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import command_line, hub, processes, registry, run_log
from zoo.configs import TrainConfig
from zoo.data import loader, open_dataset
from zoo.errors import UserError
from zoo.fine_tuning import frozen_by, head_of
from zoo.parallel import Parallel
from zoo.preemption import StopRequest
from zoo.restarts import run_with_restarts
from zoo.run_checkpoints import RunCheckpoints
from zoo.speed import Profile, Speed, flops_of
from zoo.tasks import TASKS
from zoo.train_arguments import Arguments, requested_run
from zoo.train_step import State, make_evaluate_step, make_state, make_train_step, optimizer_for


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo train")
    config, folder = requested_run(arguments)
    if arguments.max_restarts:
        where = [] if arguments.resume else ["--folder", str(folder)]
        sys.exit(run_with_restarts([*sys.orig_argv, *where, "--max-restarts", "0"], arguments.max_restarts))
    parallel = Parallel(arguments.parallel, arguments.fsdp, arguments.tensor, arguments.batch_norm_devices)
    parallel.check()
    with processes.joined(arguments.processes, arguments.process_timeout) as watch:
        if jax.process_count() > 1:
            if not (arguments.folder or arguments.resume):
                raise UserError("processes of one run write into one folder; name it with --folder")
            processes.check_alike(dataclasses.asdict(config) | dataclasses.asdict(parallel) | {"folder": folder})
        hub.use_compilation_cache()
        if arguments.warm:
            warm(config, parallel)
        else:
            train(config, folder, parallel, profile=arguments.profile, alive=watch.beat)


def train(
    config: TrainConfig,
    folder: Path,
    parallel: Parallel | None = None,
    *,
    profile: bool = False,
    alive: Callable[[int], None] = lambda step: None,
) -> State:
    """Trains from the folder's last checkpoint, or from the start, to `config.steps`; returns the last state.

    Args:
      parallel: how it is spread over all devices; by `jit` without.
      profile: a trace of some steps is written into the folder.
      alive: told the step whenever the run has moved on: before each step and each evaluated batch.

    Raises:
      UserError: the data set is of another kind, the batch does not divide by the devices, the loss is no longer a
        number, or the folder cannot be written; the last good checkpoint stays.
      SystemExit: SIGINT or SIGTERM came; all is saved.
    """
    started = time.monotonic()
    run = _assembled(config, parallel or Parallel())
    _make_folder(config, folder)
    noted = [folder / f"unreadable{split}{_mark()}.txt" for split in ("", "_test")]
    for source, file in zip((run.data, run.held_out), noted, strict=True):
        if hasattr(source, "unreadable"):
            source.unreadable.write_to(file)
    checkpoints, best = RunCheckpoints(folder / "checkpoints"), RunCheckpoints(folder / "best")
    state, loader_state = checkpoints.restore(run.state)
    if loader_state is not None:
        run.batches.set_state(loader_state)

    first_step = int(state["step"])
    pending: list[dict[str, jax.Array]] = []
    shown: list[Path] = []
    trace = Profile(folder / "profile" if profile and jax.process_index() == 0 else None, first_step, config.steps)
    with (
        contextlib.closing(run.batches),
        run_log.told_plainly(folder),
        run_log.open_log(folder, first_step, config.steps) as log,
        StopRequest() as stop,
    ):
        log.say(f"{config.model} on {config.dataset}: {_count(state['params']):,} parameters, run folder {folder}")
        first = next(run.batches)
        program = run.compiled_step(state, first)
        speed = Speed(flops_of(program) * config.accumulate, run_log.last_row(folder, "speed"))
        batches = itertools.chain([first], run.batches)
        for step in range(first_step + 1, config.steps + 1):
            trace.before(step)
            with speed.waiting():
                batch = next(batches)
            alive(step)
            state, figures = program(state, run.parallel.split(batch))
            pending.append(figures)
            speed.count(batch)
            last, stopping = step == config.steps, stop.reached(step)
            log.advance(step)
            if step == first_step + 1:
                jax.block_until_ready(figures)
                log.say(f"first step done {time.monotonic() - started:.1f} s after the start")
                speed.resume()
            if trace.after(step, figures):
                log.say(f"wrote {trace.folder}")

            if step % config.log_every == 0 or last or stopping:
                log.write(step, "train", _mean_if_finite(pending, step, config))
                pending.clear()
                if speed.steps:
                    log.write(step, "speed", speed.figures())
            if step % config.checkpoint_every == 0 or last or stopping:
                _mean_if_finite(pending, step, config)
                checkpoints.save(step, state, run.batches.get_state())
            if stopping and not last:
                checkpoints.wait()
                log.say(f"stopped at step {step}, all saved; go on with: {_resume_command(config, folder)}")
                raise SystemExit(128 + stop.requested)
            if step % config.evaluate_every == 0 or last:
                log.write(step, "test", _evaluate(run, state, lambda step=step: alive(step)))
                shown = _show(run, state, folder, step)
                speed.resume()
                if config.patience:
                    best_step, is_over = processes.as_first(lambda: run_log.best_evaluation(folder, config.patience))
                    if best_step == step:
                        best.save(step, state, run.batches.get_state())
                    if is_over:
                        log.say(f"stopped at step {step}: no test loss since step {best_step} was smaller")
                        checkpoints.save(step, state, run.batches.get_state())
                        break
        checkpoints.wait()
        best.wait()
        for path in [*shown, folder / "curves.png", folder / "checkpoints"]:
            log.say(f"wrote {path}")
        for path in filter(Path.exists, noted):
            log.say(f"passed over {len(path.read_text(encoding='utf-8').splitlines())} videos, which {path} names")
    return state


def warm(config: TrainConfig, parallel: Parallel) -> None:
    """Compiles what a run of this config will, so that the compilation cache has it, and writes nothing else.

    Raises:
      UserError: as `train`.
    """
    run = _assembled(config, parallel)
    started = time.monotonic()
    with contextlib.closing(run.batches):
        run.compiled_step(run.state, next(run.batches))
    batch = next(iter(run.held_out_batches()))
    key = jax.random.key(config.seed)
    run.evaluate_step.lower(run.state["average"], run.state["batch_stats"], parallel.spread(batch), key).compile()
    if jax.process_index() == 0:
        print(f"compiled in {time.monotonic() - started:.1f} s for {parallel.told()}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class _Run:
    """All that a run consists of before its first step."""

    config: TrainConfig
    parallel: Parallel
    task: Any  # one whose items have answers has `over_all` beside what `Task` asks for
    data: Any
    held_out: Any
    batches: grain.DatasetIterator
    graph: nnx.GraphDef
    random: nnx.State
    state: State
    train_step: Callable[[State, Any], Any]
    evaluate_step: Any

    def compiled_step(self, state: State, batch: loader.Batch) -> jax.stages.Compiled:
        return self.parallel.lower(self.train_step, state, self.parallel.split(batch)).compile()

    def held_out_batches(self) -> Any:
        share = jax.process_index(), jax.process_count()
        return loader.evaluation_batches(self.held_out, self.config.batch_size, self.config.evaluation_items, share)


def _assembled(config: TrainConfig, parallel: Parallel) -> _Run:
    """Data, network, optimizer and the two programs, as the config says and for these devices."""
    parallel.check_batch(config)
    sources = [open_dataset(config.dataset, split, **config.dataset_options) for split in ("train", "test")]
    task, item = TASKS[config.task](**config.task_options), sources[0][0]
    if missing := [name for name in task.needs if name not in item]:
        has, lacks = ", ".join(item), ", ".join(missing)
        raise UserError(f"{config.dataset} has {has}, and no {lacks} for {config.task}; take another data set")
    task, data, held_out = task.prepared(*sources)
    parallel.check_task(task)
    share = jax.process_index(), jax.process_count()
    batches = loader.training_batches(data, config.batch_size, config.seed, config.sampler, config.workers, share)

    model = registry.create(config.model, seed=config.seed, **config.model_options(data.num_classes))
    for path, name in config.start.items():
        card = registry.card(name)
        has_classes = "num_classes" in registry.options_of(config.model)
        is_other = has_classes and not path and card.options.get("num_classes") != data.num_classes
        hub.start_from(model, path, card, leave_out=head_of(config.model, config.options) if is_other else ())
    optimizer = optimizer_for(config, model, data)
    graph, state, random = make_state(model, optimizer, frozen=bool(config.freeze))
    frozen = frozen_by(config, model)
    return _Run(
        config=config,
        parallel=parallel,
        task=task,
        data=data,
        held_out=held_out,
        batches=batches,
        graph=graph,
        random=random,
        state=parallel.place(state),
        train_step=make_train_step(config, task, optimizer, graph, random, frozen, parallel),
        evaluate_step=make_evaluate_step(task, graph, random, parallel),
    )


def _evaluate(run: _Run, state: State, alive: Callable[[], None]) -> dict[str, float]:
    """Mean figures over the held-out items, and those of all of them: the same items and noise every time."""
    sums: dict[str, tuple[jax.Array, ...]] = {}
    answers = []
    for i, batch in enumerate(run.held_out_batches()):
        alive()
        key = jax.random.fold_in(jax.random.key(run.config.seed), i)
        figures, its_answers, weight = run.evaluate_step(
            state["average"], state["batch_stats"], run.parallel.spread(batch), key
        )
        sums = jax.tree.map(jnp.add, sums, figures) if sums else figures
        counts = np.asarray(weight) > 0
        answers.append(jax.tree.map(lambda values, counts=counts: np.asarray(values)[counts], its_answers))
    means = {name: float(total) / float(items) for name, (total, items) in sums.items() if items > 0}
    if answers[0] is None:
        return means
    return means | run.task.over_all(jax.tree.map(lambda *parts: np.concatenate(parts), *answers))


def _show(run: _Run, state: State, folder: Path, step: int) -> list[Path]:
    """What the task and the run's figures have to show of the averaged parameters, by the first process."""
    average, batch_stats = run.parallel.own_copy((state["average"], state["batch_stats"]))
    if jax.process_index():
        return []
    averaged = nnx.merge(run.graph, average, batch_stats, run.random, copy=True)
    averaged.eval()
    shown = run.task.show(averaged, folder, step, jax.random.key(run.config.seed))
    run_log.draw_curves(folder)
    return shown


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


def _count(params: nnx.State) -> int:
    return sum(parameter.size for parameter in jax.tree.leaves(params))


def _make_folder(config: TrainConfig, folder: Path) -> None:
    """Makes a new run's folder, once all else that may fail at the start has not; a resumed run has one."""
    if jax.process_index() or (folder / "config.json").exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    except OSError as error:
        reason = f"cannot make the run's folder {folder}: {error.strerror}"
        raise UserError(f"{reason}; choose another place with --runs") from error


def _mark() -> str:
    """What the files of a process are called apart by; nothing for the first."""
    return f"-{jax.process_index()}" if jax.process_index() else ""


def _resume_command(config: TrainConfig, folder: Path) -> str:
    return f"python -m zoo.train --model {config.model} --resume {folder}"


if __name__ == "__main__":
    command_line.run("zoo train", main)
