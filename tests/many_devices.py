"""Training steps on eight devices that the CPU pretends to have: `python -m tests.many_devices` prints what they gave.

A process has as many devices as it starts with, so this is one of its own. It prints a JSON object of cases by name: of
small networks, or with the argument `published` of ones that take long to compile.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tests.counted import Counting
from zoo import configs, registry
from zoo.parallel import STRATEGIES, Parallel
from zoo.tasks import TASKS
from zoo.train_step import make_state, make_train_step, optimizer_for

SIZE = 16
STEPS = 3


def on(count: int, parallel: Parallel) -> Parallel:
    """As `parallel`, but on the first devices only."""
    return dataclasses.replace(parallel, devices=tuple(jax.devices()[:count]))


def trained(
    config: configs.TrainConfig, model: nnx.Module, batch: dict[str, Any], parallel: Parallel, optimizer: Any = None
) -> Any:
    """The last state, the losses, and the program before it is compiled, of some steps on one batch."""
    task = TASKS[config.task](**config.task_options)
    optimizer = optimizer or optimizer_for(config, model, None)
    graph, state, random = make_state(model, optimizer)
    state = parallel.place(state)
    step = make_train_step(config, task, optimizer, graph, random, (), parallel)
    lowered = parallel.lower(step, state, parallel.split(batch))
    program = lowered.compile()
    losses = []
    for _ in range(STEPS):
        state, figures = program(state, parallel.split(batch))
        losses.append(float(figures["loss"]))
    return state, losses, lowered


def numbers(state: Any) -> list[float]:
    """Batch statistics and parameters, one after the other."""
    leaves = jax.tree.leaves((state["batch_stats"], state["params"]))
    return [float(value) for leaf in leaves for value in np.asarray(leaf).ravel()]


def clips() -> tuple[configs.TrainConfig, dict[str, Any]]:
    """A classifier with batch norm and dropout, and clips for it."""
    config = configs.TrainConfig("counting", "classification", "none", steps=STEPS, batch_size=SIZE, learning_rate=0.1)
    draw = np.random.default_rng(0)
    video = draw.integers(0, 255, (SIZE, 2, 4, 4, 3)).astype(np.uint8)
    return dataclasses.replace(config, warmup_steps=0), {"video": video, "label": np.arange(SIZE, dtype=np.int32) % 3}


class NormOfHalves(nnx.BatchNorm):
    """Batch norm of each half of a batch by itself, written out; what it keeps is the mean of both."""

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        halves = x.reshape(2, -1, x.shape[-1])
        mean, variance = halves.mean(axis=1), halves.var(axis=1)
        for kept, seen in ((self.mean, mean), (self.var, variance)):
            kept[...] = self.momentum * kept[...] + (1 - self.momentum) * seen.mean(axis=0)
        even = (halves - mean[:, None]) / jnp.sqrt(variance + self.epsilon)[:, None]
        return even.reshape(x.shape) * self.scale[...] + self.bias[...]


class Denoiser(nnx.Module):
    """Clean clips from noisy ones, each pixel for itself."""

    def __init__(self, *, rngs: nnx.Rngs):
        widths = [1 + 1 + 10 + 2, 64, 64, 64, 64, 1]
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(widths)])

    def __call__(self, z: jax.Array, time: jax.Array, classes: jax.Array, known: jax.Array) -> jax.Array:
        told = jnp.concatenate([time[:, None], classes, known], axis=-1)
        pixels = z.reshape(len(z), -1, 1)
        x = jnp.concatenate([pixels, jnp.broadcast_to(told[:, None], (*pixels.shape[:2], told.shape[-1]))], axis=-1)
        for layer in self.layers[:-1]:
            x = jax.nn.gelu(layer(x))
        return self.layers[-1](x).reshape(z.shape)


def noisy(size: int) -> tuple[configs.TrainConfig, dict[str, Any]]:
    """A generator's config, which learns from noise, and clips for it."""
    config = dataclasses.replace(
        configs.experiment("video_gen"),
        options={"widths": (32, 32), "patch": 4},
        task_options={"clip_shape": (2, size, size, 1), "know_frames": 0.5},
        batch_size=SIZE,
        steps=STEPS,
        warmup_steps=0,
    )
    draw = np.random.default_rng(0)
    video = draw.integers(0, 255, (SIZE, 2, size, size, 1)).astype(np.uint8)
    return config, {"video": video, "classes": np.eye(10, dtype=np.float32)[np.arange(SIZE) % 10]}


def tell(told: dict[str, Any], name: str, state: Any, losses: list[float], **more: Any) -> None:
    told[name] = {"losses": losses, "numbers": numbers(state), **more}
    print(name, losses, file=sys.stderr, flush=True)


def small_networks() -> dict[str, Any]:
    told: dict[str, Any] = {}
    config, batch = clips()

    def counting() -> nnx.Module:
        return Counting(3, rngs=nnx.Rngs(0))

    for ways in (1, 2, 4, 8):
        for strategy in STRATEGIES:
            tell(
                told, f"clips {strategy} {ways}", *trained(config, counting(), batch, on(ways, Parallel(strategy)))[:2]
            )
    parts = dataclasses.replace(config, accumulate=2)
    for strategy, ways in (("jit", 1), ("jit", 4), ("shard_map", 4)):
        tell(told, f"parts {strategy} {ways}", *trained(parts, counting(), batch, on(ways, Parallel(strategy)))[:2])

    by_halves: Any = counting()
    by_halves.norm = NormOfHalves(6, rngs=nnx.Rngs(0))
    tell(told, "halves", *trained(config, by_halves, batch, on(1, Parallel()))[:2])
    for strategy, ways in (("shard_map", 4), ("pmap", 2)):
        near = on(ways, Parallel(strategy, batch_norm_devices=ways // 2))
        tell(told, f"halves {strategy} {ways}", *trained(config, counting(), batch, near)[:2])

    config, batch = noisy(8)
    config = dataclasses.replace(config, optimizer="adamw")  # which compiles in less time than muon

    def denoiser() -> nnx.Module:
        return Denoiser(rngs=nnx.Rngs(0))

    for remat in ("none", "products"):
        one = dataclasses.replace(config, remat=remat)
        *ended, lowered = trained(one, denoiser(), batch, on(1, Parallel()))
        text = lowered.as_text()
        counts = {what: text.count(f"stablehlo.{what} ") for what in ("tanh", "dot_general")}
        tell(told, f"noise {remat}", *ended, counts=counts)
    for strategy, ways in (("jit", 8), ("shard_map", 4), ("pmap", 2)):
        tell(told, f"noise {strategy} {ways}", *trained(config, denoiser(), batch, on(ways, Parallel(strategy)))[:2])
    half = dataclasses.replace(config, compute_dtype="bfloat16")
    for strategy, ways in (("jit", 1), ("shard_map", 4), ("pmap", 2)):
        *ended, lowered = trained(half, denoiser(), batch, on(ways, Parallel(strategy)))
        sums = re.findall(r'"stablehlo.all_reduce".*?\) : \((.*?)\) ->', lowered.as_text(), re.DOTALL)
        tell(told, f"half {strategy} {ways}", *ended, sums=sums)
    state, losses, _ = trained(config, denoiser(), batch, on(8, Parallel(fsdp=2, tensor=2)))
    shares = {
        part: max(leaf.size / leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state[part]))
        for part in ("params", "optimizer")
    }
    tell(told, "noise jit 2x2x2", state, losses, shares=shares)
    return told


def published_networks() -> dict[str, Any]:
    """By plain descent: AdamW steps as far where a gradient is nearly nothing, and there all is rounding."""
    told: dict[str, Any] = {}
    classifier, batch = clips()
    batch["video"] = np.random.default_rng(0).integers(0, 255, (SIZE, 4, 32, 32, 3)).astype(np.uint8)
    generator, noise = noisy(16)
    cases = {
        "video_gen": (generator, noise, generator.options, optax.sgd(0.1), (("jit", 1), ("jit", 8))),
        "r3d_18": (classifier, batch, {"num_classes": 3}, optax.sgd(1e-5), (("jit", 1), ("shard_map", 4))),
    }
    for name, (config, batch, options, optimizer, ways) in cases.items():
        for strategy, count in ways:
            model = registry.create(name, seed=0, **options)
            ended = trained(config, model, batch, on(count, Parallel(strategy)), optimizer)
            tell(told, f"{name} {strategy} {count}", *ended[:2])
    return told


if __name__ == "__main__":
    print(json.dumps(published_networks() if sys.argv[1:] == ["published"] else small_networks()))
