"""Experiments, one file each, called like the model or like what it learns: presets, cost, what to expect."""

import dataclasses
import importlib
import json
import pkgutil
from typing import Any

from zoo import registry
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run; two runs of the same config on the same machine are identical.

    Args:
      model, options: the arguments of `zoo.create`.
      start: published models whose weights parts of the network start from, by the part's path ("" for all of it).
      task: a name in `zoo.tasks.TASKS`; `task_options` its arguments.
      dataset: a name that `zoo.data.open_dataset` takes; `dataset_options` its arguments.
      steps, batch_size: optimizer steps, clips a step.
      optimizer: "adamw", or "muon" (Jordan et al. 2024: matrices by orthogonalised momentum, the rest by AdamW).
      learning_rate: the peak, reached after `warmup_steps` linear steps and then led to zero along a cosine.
      weight_decay, clip_norm: decoupled weight decay; largest global gradient norm.
      ema_decay: decay a step of the averaged parameters, which are the ones evaluated and published.
      compute_dtype: "float32" or "bfloat16"; parameters and optimizer state stay float32.
      accumulate: parts that a batch is computed in, one after the other; gradients are averaged before the step. Batch
        statistics are those of each part.
      remat: what the backward pass computes anew to save memory: "none", or all but "products" (matrix products and
        convolutions; Chen et al. 2016, arXiv:1604.06174).
      sampler: how often an epoch has the examples of a class: a name in `zoo.data.resampling.SAMPLERS`.
      workers: processes that make batches, which do not depend on their number; 0 makes them in two threads.
      freeze: the path of a part that stays as it is, or "trunk" for all but the head; batch statistics stay too.
      layer_decay: each layer's learning rate in units of that of the layer behind it.
      patience: evaluations without a smaller test loss after which training ends; 0 for never. What is published is
        then of the best evaluation.
      evaluation_items: held-out items looked at in an evaluation.
      log_every, evaluate_every, checkpoint_every: in steps.
      seed: of parameters, data order, noise and dropout.
    """

    model: str
    task: str
    dataset: str
    steps: int
    batch_size: int
    learning_rate: float
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    task_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    dataset_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    start: dict[str, str] = dataclasses.field(default_factory=dict)
    optimizer: str = "adamw"
    warmup_steps: int = 30
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    compute_dtype: str = "float32"
    accumulate: int = 1
    remat: str = "none"
    sampler: str = "instance"
    workers: int = 0
    freeze: str = ""
    layer_decay: float = 1.0
    patience: int = 0
    evaluation_items: int = 256
    log_every: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 100
    seed: int = 0

    def check(self) -> None:
        """Raises UserError for a value that no run can have."""
        for name in ("steps", "batch_size", "learning_rate", "accumulate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise UserError(f"no compute dtype {self.compute_dtype!r}; there are float32, bfloat16")
        if self.remat not in ("none", "products"):
            raise UserError(f"no rematerialisation {self.remat!r}; there are none, products")
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}; it must be 0 or above")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}; it must be above 0, and 1 at most")

    def model_options(self, num_classes: int) -> dict[str, Any]:
        """The arguments of `zoo.create`: `options`, and the data's number of classes if the network has classes."""
        classes = {"num_classes": num_classes} if "num_classes" in registry.options_of(self.model) else {}
        return classes | self.options

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The config that `to_json` wrote. JSON knows no tuples: its lists become tuples."""
        return cls(**{name: _tuples(value) for name, value in json.loads(text).items()})


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def trainable() -> list[str]:
    """Names of all experiments, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def experiment(name: str, preset: str = "default") -> TrainConfig:
    """The config of an experiment's preset.

    Raises:
      UserError: no such experiment, or no such preset.
    """
    if name not in trainable():
        raise registry.unknown("model to train", name, trainable())
    presets = importlib.import_module(f"zoo.configs.{name}").PRESETS
    if preset not in presets:
        raise UserError(f"{name} has no preset {preset!r}; it has {', '.join(presets)}")
    return presets[preset]
