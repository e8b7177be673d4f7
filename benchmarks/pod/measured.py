"""A training step timed on the chips that are here: the same table as the estimate's, measured."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.pod.models import Trained, abstract_step, trained
from benchmarks.pod.scaling import Point
from benchmarks.pod.slices import Slice
from zoo import registry
from zoo.chips import PEAK_FLOPS
from zoo.errors import UserError
from zoo.optimizers import make_optimizer
from zoo.parallel import Parallel
from zoo.train_step import make_state

STEPS = 20
"""Steps that are timed together, behind two that are not."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """A training step: seconds of each, seconds from nothing to the end of the first, and the most memory in use."""

    step: float
    first_step: float
    compile: float
    peak_bytes: int | None


def timed(of: Trained, parallel: Parallel, per_chip: int, steps: int = STEPS) -> Timed:
    """Runs the step on random clips that stay on the chips: loading them is `benchmarks.input_pipeline`'s business.

    All processes that have devices of the mesh are to call it at once.
    """
    begun = time.monotonic()
    of, shapes = of.on(parallel, per_chip)
    step, _ = abstract_step(of, parallel)
    model = registry.create(of.config.model, **of.config.options)
    state = parallel.place(make_state(model, make_optimizer(of.config))[1])
    batch = parallel.split(_rows(shapes, len(parallel.mesh.local_devices) / parallel.mesh.size))
    lowered = parallel.lower(step, state, batch)
    before = time.monotonic()
    program = lowered.compile()
    compiled = time.monotonic() - before
    state, figures = program(state, batch)
    jax.block_until_ready(figures)
    first = time.monotonic() - begun
    state, figures = program(state, batch)
    jax.block_until_ready(figures)
    clock = time.monotonic()
    for _ in range(steps):
        state, figures = program(state, batch)
    jax.block_until_ready((state, figures))
    seconds = (time.monotonic() - clock) / steps
    memory = parallel.mesh.local_devices[0].memory_stats() or {}
    return Timed(seconds, first, compiled, memory.get("peak_bytes_in_use"))


def _rows(shapes: Any, share: float) -> dict[str, np.ndarray]:
    """This process's share of a random batch; labels are zero, which every data set has."""
    draw = np.random.default_rng(jax.process_index())

    def rows(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        size = round(shape.shape[0] * share), *shape.shape[1:]
        return draw.integers(0, 256, size).astype(np.uint8) if shape.dtype == np.uint8 else np.zeros(size, shape.dtype)

    return {name: rows(shape) for name, shape in shapes.items()}


def meshes() -> Iterator[tuple[Any, ...]]:
    """1, 2, 4 ... of the devices of this process, and all of all processes.

    Of many processes each has such a mesh of its own, and times it while the others time theirs.
    """
    count = 1
    while count <= jax.local_device_count() and count < jax.device_count():
        yield tuple(jax.local_devices()[:count])
        count *= 2
    yield tuple(jax.devices())


def points(
    model: str, parallel: Parallel, per_chip: int, meshes: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[Point, Timed]]:
    """With as many clips on each chip, then with one clip for each chip of the largest mesh, the last.

    A chip that would have more clips than `per_chip` under strong scaling is left out: it may not hold them.
    """
    of, every = trained(model), list(meshes)
    alone = None

    def on(mesh: tuple[Any, ...]) -> Parallel:
        near = min(parallel.batch_norm_devices, len(mesh))
        return dataclasses.replace(parallel, devices=mesh, batch_norm_devices=near)

    for mesh in every:
        time = timed(of, on(mesh), per_chip)
        alone = time.step if len(mesh) == 1 else alone
        yield Point("weak", len(mesh), per_chip * len(mesh), time.step, alone and max(0.0, time.step - alone)), time
    most = len(every[-1])
    for mesh in every:
        clips = most // len(mesh)
        if clips <= per_chip and most % len(mesh) == 0:
            time = timed(of, on(mesh), clips)
            yield Point("strong", len(mesh), most, time.step, None), time


def cells(time: Timed) -> dict[str, Any]:
    told = {"compile_seconds": f"{time.compile:.0f}", "first_step_seconds": f"{time.first_step:.1f}", "fits": "yes"}
    return told | ({} if time.peak_bytes is None else {"peak_gb": f"{time.peak_bytes / 1e9:.3f}"})


def hardware() -> str:
    return f"{jax.device_count()} {jax.devices()[0].device_kind}, {jax.process_count()} processes"


def check_here(slice_: Slice) -> None:
    """Raises UserError unless the devices that are here are the slice."""
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    if PEAK_FLOPS.get(kind) == slice_.chip.peak and count == slice_.chips:
        return
    raise UserError(
        f"{slice_.name} is {slice_.chips} {slice_.chip.device_kind}, here are {count} {kind}; --compile-only estimates "
        "what it does without it"
    )
