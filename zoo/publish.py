"""`zoo publish RUN --name NAME`: a finished run as a published model, a card and its weights.

What no run knows (description, labels, licence, protocol) stands in the experiment's file in zoo/configs, in `CARDS`.
"""

import dataclasses
import functools
import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core
from tyro.conf import Positional

from zoo import command_line, configs, hub, kernels, registry, run_log
from zoo.configs import TrainConfig
from zoo.data import open_dataset
from zoo.data.log_mel import HOP, SAMPLE_RATE
from zoo.download import sha256_of
from zoo.errors import UserError
from zoo.models.speech_ctc import STRIDE
from zoo.registry import ModelCard, WeightSource
from zoo.run_checkpoints import RunCheckpoints
from zoo.train_step import make_state, optimizer_for


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Makes a published model of a finished run."""

    run: Annotated[Path, Positional]
    """The run's folder."""
    name: str
    """The model's name: one of those in `CARDS` of zoo/configs."""
    out: Path = Path("checkpoints")
    """Where the model's folder goes; one that is there is replaced."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo publish")
    told = cards()
    if arguments.name not in told:
        raise registry.unknown("model in zoo/configs", arguments.name, told)
    card = publish(arguments.run, arguments.name, told[arguments.name], arguments.out)
    print(f"{arguments.out / card.name}: {card.parameters:,} parameters, {', '.join(_figures(card.metrics))}")


def cards() -> dict[str, dict[str, Any]]:
    """What the experiments' files say of the models made with them, by the models' names."""
    modules = [importlib.import_module(f"zoo.configs.{name}") for name in configs.trainable()]
    return {name: told for module in modules for name, told in getattr(module, "CARDS", {}).items()}


def publish(run: Path, name: str, told: Mapping[str, Any], out: Path) -> ModelCard:
    """Writes `out/name` with card.json and the run's averaged parameters, in half precision.

    Of parts that started from a published model no more is stored than what became of it.

    Raises:
      UserError: no finished run is there, or the folder cannot be written.
    """
    config, model = trained(run)
    rows = [row for row in run_log.read_metrics(run / "metrics.jsonl") if row["kind"] == "test"]
    best, is_over = run_log.best_evaluation(run, config.patience) if rows and config.patience else (config.steps, False)
    if not rows or not (is_over or rows[-1]["step"] == config.steps):
        raise UserError(f"{run} is not at its end, step {config.steps}; go on with zoo train --resume {run}")
    (row,) = (row for row in rows if row["step"] == best)
    figures = {name: round(value, 4) for name, value in row.items() if name not in ("step", "kind", "loss")}
    tree, beneath = hub.weights_of(model), _stands_on(config, name)
    for path, start in beneath.items():
        below = registry.card(start)
        part = hub.load_weights(nnx.eval_shape(functools.partial(registry.create, below.arch, **below.options)), below)
        _leave_out(tree, tuple(filter(None, path.split("."))), hub.weights_of(part))
    options = config.model_options(len(told["labels"]))
    with hub.new_folder((out / name).absolute()) as new:
        new.mkdir()
        hub.save_weights(tree, new / "weights", np.float16)
        files = {str(path.relative_to(new)): sha256_of(path) for path in sorted(new.rglob("*")) if path.is_file()}
        card = ModelCard(
            **{"metrics": figures, **told},
            name=name,
            arch=config.model,
            options=options,
            source=WeightSource(kind="checkpoint", files=files, beneath=beneath or None),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
            flops=flops(model, *_seen(told, model)),
        )
        (new / "card.json").write_text(card.to_json(), encoding="utf-8")
    return card


def _stands_on(config: TrainConfig, name: str) -> dict[str, str]:
    """The published models of which no more is stored than what became of them, by the paths of their parts.

    A run that goes on from the model that it replaces stands on what that stood on.
    """
    if config.start.get("") == name:
        return dict(registry.card(name).source.beneath or {})
    return dict(config.start)


def trained(run: Path) -> tuple[TrainConfig, nnx.Module]:
    """A run's config, and its network with the averaged parameters of the last or best checkpoint, for evaluation.

    Raises:
      UserError: the folder is not a run's.
    """
    if not (run / "config.json").is_file():
        raise UserError(f"{run} is not the folder of a run: it has no config.json")
    config = TrainConfig.from_json((run / "config.json").read_text(encoding="utf-8"))
    data = open_dataset(config.dataset, "test", **config.dataset_options)
    model = registry.create(config.model, **config.model_options(data.num_classes))
    graph, state, random = make_state(model, optimizer_for(config, model, data))
    state, _ = RunCheckpoints(run / ("best" if config.patience else "checkpoints")).restore(state)
    model = nnx.merge(graph, state["average"], state["batch_stats"], random, copy=True)
    model.eval()
    return config, model


def _seen(told: Mapping[str, Any], model: Any) -> list[tuple[int, ...]]:
    """The shapes of what the network sees: a frame, a second of sound, or a clip with what a generator is told."""
    sees = told["preprocessing"]
    channels = getattr(model, "channels", getattr(model, "num_mels", 3))
    if "vocabulary" in sees:
        return [(1, SAMPLE_RATE // HOP // STRIDE * STRIDE, channels)]
    side = sees["size"] if "size" in sees else sees["crop"]
    if "num_frames" not in sees:
        return [(1, side, side, channels)]
    clip = (1, sees["num_frames"], side, side, channels)
    if told["task"] != "generation":
        return [clip]
    if hasattr(model, "encode"):
        clip = nnx.eval_shape(lambda: model.encode(jnp.zeros(clip))).shape
    return [clip, (1,), (1, len(told["labels"])), clip[:2]]


def _leave_out(tree: dict[str, Any], path: tuple[str, ...], part: dict[str, Any]) -> None:
    """Takes the arrays that are as they were in `part` out of what lies at a path, and whatever is then empty."""
    for name in reversed(path):
        part = {name: part}
    for name, value in part.items():
        if isinstance(value, dict):
            _leave_out(tree[name], (), value)
            if not tree[name]:
                del tree[name]
        elif np.array_equal(tree[name], value):
            del tree[name]


def flops(model: nnx.Module, *shapes: tuple[int, ...]) -> int:
    """Those of the convolutions and products in one forward pass, a multiply-add as two, whole windows at borders.

    Args:
      shapes: of the network's arguments.
    """
    graph, weights = nnx.split(model)
    with kernels.prefer("xla"):
        traced = jax.make_jaxpr(lambda weights, *inputs: nnx.merge(graph, weights)(*inputs))(
            weights, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        )
    return 2 * _multiplications(traced.jaxpr)


def _multiplications(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, values = equation.primitive.name, equation.params
        variables = (*equation.outvars, *equation.invars)
        shapes: list[tuple[int, ...]] = [getattr(variable.aval, "shape", ()) for variable in variables]
        if name == "conv_general_dilated":
            out, _, kernel = shapes
            # Each output channel sees a kernel of all taps by the input channels of its group.
            total += math.prod(out) * math.prod(kernel) // kernel[values["dimension_numbers"].rhs_spec[0]]
        elif name == "dot_general":
            out, left, _ = shapes
            (contracted, _), _ = values["dimension_numbers"]
            total += math.prod(out) * math.prod(left[axis] for axis in contracted)
        else:
            inner = sum(map(_multiplications, core.jaxprs_in_params(values)))
            total += inner * values.get("length", 1) if name == "scan" else inner
    return total


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in metrics.items()]


if __name__ == "__main__":
    command_line.run("zoo publish", main)
