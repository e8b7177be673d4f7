"""What is trained on a slice: architectures as published, at their resolution, and a generator of a slice's size."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo import registry
from zoo.configs import TrainConfig
from zoo.errors import UserError
from zoo.optimizers import make_optimizer
from zoo.parallel import Parallel
from zoo.tasks import TASKS
from zoo.train_step import make_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training run's config, and the arrays of one example: shape and dtype by name."""

    config: TrainConfig
    example: Mapping[str, tuple[tuple[int, ...], str]]

    def on(self, parallel: Parallel, per_chip: int) -> tuple["Trained", dict[str, jax.ShapeDtypeStruct]]:
        """With the batch of all devices, and the shapes of such a batch."""
        batch_size = per_chip * parallel.parts
        config = dataclasses.replace(self.config, batch_size=batch_size)
        shapes = {
            name: jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype))
            for name, (shape, dtype) in self.example.items()
        }
        return dataclasses.replace(self, config=config), shapes


def _config(model: str, task: str, **changes: Any) -> TrainConfig:
    """AdamW, whose arithmetic is no products, so that all products are the model's; bfloat16 products."""
    return TrainConfig(
        model, task, "none", steps=10_000, batch_size=8, learning_rate=1e-3, compute_dtype="bfloat16", **changes
    )


_CLIP = (16, 256, 256, 3)

TRAINED = {
    # Of a slice's size: RGB clips of 16x256x256 in patches of 4x4, three levels of 256, 512 and 1024 features, two
    # attention blocks over the 4x16x16 places of the coarsest: 65M parameters.
    "video_gen": Trained(
        _config(
            "video_gen",
            "generation",
            options={"channels": 3, "patch": 4, "widths": (256, 512, 1024), "halve_time": True},
            task_options={"clip_shape": _CLIP},
            remat="products",
        ),
        {"video": (_CLIP, "uint8"), "classes": ((10,), "float32")},
    ),
    # Tran et al. 2018 (arXiv:1711.11248) on Kinetics-400: clips of 16x112x112.
    "r2plus1d_18": Trained(
        _config("r2plus1d_18", "classification", options={"num_classes": 400}),
        {"video": ((16, 112, 112, 3), "uint8"), "label": ((), "int32")},
    ),
    # OpenSTL's (arXiv:2306.11249) on Moving MNIST: 10 frames of 64x64 in, 10 out, four layers of 128.
    "convlstm": Trained(_config("convlstm", "prediction"), {"video": ((20, 64, 64, 1), "uint8")}),
}


def trained(name: str) -> Trained:
    """Raises UserError for a model that none is known of; it lists those that are."""
    if name not in TRAINED:
        raise UserError(f"no training on a slice is known of {name!r}; there are {', '.join(TRAINED)}")
    return TRAINED[name]


def abstract_step(of: Trained, parallel: Parallel) -> tuple[Any, Any]:
    """The training step of `zoo.train` on these devices, and the shapes of its state."""
    config = of.config
    parallel.check_batch(config)
    task = TASKS[config.task](**config.task_options)
    parallel.check_task(task)
    optimizer = make_optimizer(config)
    graphs: list[nnx.GraphDef] = []

    def fresh() -> tuple[Any, Any]:
        graph, state, random = make_state(registry.create(config.model, **config.options), optimizer)
        graphs.append(graph)
        return state, random

    state, random = jax.eval_shape(fresh)
    step = make_train_step(config, task, optimizer, graphs[0], jax.tree.map(_some, random), (), parallel)
    return step, state


def _some(shape: Any) -> jax.Array:
    """A key, or a counter, of dropout: each step seeds it anew."""
    is_key = jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if is_key else jnp.zeros(shape.shape, shape.dtype)
