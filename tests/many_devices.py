"""Training steps on eight devices that the CPU pretends to have: `python -m tests.many_devices` prints what they gave.

A process has as many devices as it starts with, so this is one of its own. It prints a JSON object of cases by name.
"""

import dataclasses
import json
import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

from tests.tiny import Tiny
from zoo import configs, registry
from zoo.parallel import STRATEGIES, Parallel
from zoo.tasks import TASKS
from zoo.train_step import make_state, make_train_step, optimizer_for

SIZE = 16
STEPS = 3


def on(count: int, parallel: Parallel) -> Parallel:
    """As `parallel`, but on the first devices only."""
    devices = np.array(jax.devices()[:count]).reshape(-1, parallel.fsdp, parallel.tensor)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    parallel.__dict__["mesh"] = mesh
    return parallel


def trained(config: configs.TrainConfig, model: nnx.Module, batch: dict[str, Any], parallel: Parallel) -> Any:
    """The last state, the losses, and the program, of some steps on one batch."""
    task = TASKS[config.task](**config.task_options)
    optimizer = optimizer_for(config, model, None)
    graph, state, random = make_state(model, optimizer)
    state = parallel.place(state)
    step = make_train_step(config, task, optimizer, graph, random, (), parallel)
    program = parallel.lower(step, state, parallel.split(batch)).compile()
    losses = []
    for _ in range(STEPS):
        state, figures = program(state, parallel.split(batch))
        losses.append(float(figures["loss"]))
    return state, losses, program


def numbers(state: Any) -> list[float]:
    """Batch statistics and parameters, one after the other."""
    leaves = jax.tree.leaves((state["batch_stats"], state["params"]))
    return [float(value) for leaf in leaves for value in np.asarray(leaf).ravel()]


def clips() -> tuple[configs.TrainConfig, dict[str, Any]]:
    """A classifier with batch norm and dropout, and clips for it."""
    config = configs.TrainConfig("tiny", "classification", "none", steps=STEPS, batch_size=SIZE, learning_rate=0.1)
    draw = np.random.default_rng(0)
    video = draw.integers(0, 255, (SIZE, 2, 4, 4, 3)).astype(np.uint8)
    return dataclasses.replace(config, warmup_steps=0), {"video": video, "label": np.arange(SIZE, dtype=np.int32) % 3}


def generated() -> tuple[configs.TrainConfig, dict[str, Any]]:
    """A generator, which learns from noise, and clips for it."""
    config = dataclasses.replace(
        configs.experiment("video_gen"),
        options={"widths": (32, 32), "patch": 4},
        task_options={"clip_shape": (2, 16, 16, 1), "know_frames": 0.5},
        batch_size=SIZE,
        steps=STEPS,
        warmup_steps=0,
    )
    draw = np.random.default_rng(0)
    video = draw.integers(0, 255, (SIZE, 2, 16, 16, 1)).astype(np.uint8)
    return config, {"video": video, "classes": np.eye(10, dtype=np.float32)[np.arange(SIZE) % 10]}


def main() -> None:
    told: dict[str, Any] = {}

    def tell(name: str, state: Any, losses: list[float], **more: Any) -> None:
        told[name] = {"losses": losses, "numbers": numbers(state), **more}
        print(name, losses, file=sys.stderr, flush=True)

    config, batch = clips()

    def tiny() -> nnx.Module:
        return Tiny(3, rngs=nnx.Rngs(0))

    for ways in (1, 2, 4, 8):
        for strategy in STRATEGIES:
            tell(f"clips {strategy} {ways}", *trained(config, tiny(), batch, on(ways, Parallel(strategy)))[:2])
    for strategy, ways in (("jit", 1), ("jit", 4), ("shard_map", 4)):
        parts = dataclasses.replace(config, accumulate=2)
        tell(f"parts {strategy} {ways}", *trained(parts, tiny(), batch, on(ways, Parallel(strategy)))[:2])

    config, batch = generated()

    def generator() -> nnx.Module:
        return registry.create("video_gen", seed=0, **config.options)

    for strategy, ways in (("jit", 1), ("jit", 8), ("shard_map", 4), ("pmap", 2)):
        tell(f"noise {strategy} {ways}", *trained(config, generator(), batch, on(ways, Parallel(strategy)))[:2])
    state, losses, _ = trained(config, generator(), batch, on(8, Parallel(fsdp=2, tensor=2)))
    shares = [leaf.size / leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state["params"])]
    moments = jax.tree.leaves(state["optimizer"])
    kept = [leaf.size / leaf.addressable_shards[0].data.size for leaf in moments if leaf.ndim > 1]
    tell("noise jit 2x2x2", state, losses, shares=shares, kept=kept)
    _, _, whole = trained(config, generator(), batch, on(1, Parallel()))
    again, losses, less = trained(dataclasses.replace(config, remat="products"), generator(), batch, on(1, Parallel()))
    memory = [program.memory_analysis().temp_size_in_bytes for program in (whole, less)]
    tell("remat", again, losses, memory=memory)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
