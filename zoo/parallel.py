"""A training step on many devices: a named mesh, what lies where on it, and how the step is split.

The mesh has three axes. A batch is split along `data` and `fsdp`. Parameters, and what the optimizer keeps of them, are
whole along `data` and may be split along `fsdp` (Rajbhandari et al. 2020, arXiv:1910.02054) and `tensor` (Shoeybi et
al. 2019, arXiv:1909.08053). The strategies give the same numbers to rounding:

    jit         one program over the whole mesh, which XLA splits as the arrays lie; the only one for fsdp and tensor
    shard_map   a program for each device, on its rows of the batch; gradients and batch statistics are averaged
    pmap        the same in JAX's older form
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zoo import kernels
from zoo.configs import TrainConfig
from zoo.errors import UserError
from zoo.optimizers import dotted
from zoo.registry import unknown

STRATEGIES = ("jit", "shard_map", "pmap")

# By the end of a path, along which axes of the mesh the last axes of an array lie: input and output features. What no
# rule names, and an axis that does not divide, stays whole.
RULES = ((r"(kernel|embedding)$", ("fsdp", "tensor")),)


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a training step is spread over devices.

    Args:
      strategy: one of `STRATEGIES`.
      fsdp, tensor: devices along these axes of the mesh; what is left is the data axis.
      batch_norm_devices: how many neighbours share a batch's statistics, as on large slices (Ying et al. 2018,
        arXiv:1811.06992), where all would wait for each other at every batch norm; 0 is all.
      devices: the mesh is of these, which may be a topology's that is not here; of all of all processes without.
    """

    strategy: str = "jit"
    fsdp: int = 1
    tensor: int = 1
    batch_norm_devices: int = 0
    devices: tuple[jax.Device, ...] | None = None  # pyright: ignore[reportInvalidTypeForm]

    def check(self) -> None:
        """Raises UserError for what no number of devices can do."""
        if self.strategy not in STRATEGIES:
            raise unknown("way to split a step", self.strategy, STRATEGIES)
        for axis in ("fsdp", "tensor"):
            if getattr(self, axis) < 1:
                raise UserError(f"--{axis} is {getattr(self, axis)}; it must be 1 or more")
        if self.strategy != "jit" and self.fsdp * self.tensor > 1:
            raise UserError(f"--parallel {self.strategy} splits batches only; --fsdp and --tensor want --parallel jit")
        if self.batch_norm_devices < 0:
            raise UserError(f"--batch-norm-devices is {self.batch_norm_devices}; it must be 1 or more, or 0 for all")
        if self.strategy == "jit" and self.batch_norm_devices:
            told = f"--batch-norm-devices {self.batch_norm_devices} wants --parallel shard_map or pmap"
            raise UserError(f"{told}: the one program of jit sees the whole batch")

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices, those of a process side by side, so that a process's rows of a batch are side by side too.

        Raises:
          UserError: the devices do not suffice, or do not divide.
        """
        devices, beside = np.array(self.devices or jax.devices()), self.fsdp * self.tensor
        asked = f"a mesh of fsdp {self.fsdp} x tensor {self.tensor}"
        if len(devices) % beside:
            wrong = "is larger than" if beside > len(devices) else "does not divide"
            raise UserError(f"{asked} {wrong} the {_devices(len(devices))}; take divisors of {len(devices)}")
        own = sum(device.process_index == devices[0].process_index for device in devices)
        if own % self.tensor:
            told = f"which have {_devices(own)} each"
            raise UserError(f"{asked} splits an example over processes, {told}; take a smaller --tensor")
        return Mesh(
            devices.reshape(-1, self.fsdp, self.tensor), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
        )

    @property
    def parts(self) -> int:
        """Parts that a batch is split into."""
        return self.mesh.size // self.tensor

    @property
    def axis(self) -> str | None:
        """The name of the axis over which each device's program averages; None where there is one program."""
        return None if self.strategy == "jit" else "data"

    @property
    def batch_norm_groups(self) -> tuple[tuple[int, ...], ...] | None:
        """The places along `axis` of devices that share a batch's statistics; None where all do."""
        count = self.batch_norm_devices
        if not count:
            return None
        return tuple(tuple(range(start, start + count)) for start in range(0, self.parts, count))

    @property
    def whole(self) -> NamedSharding:
        """How an array lies that every device has all of."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """How a batch lies."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    def told(self) -> str:
        """For people: how many devices, and how they are used."""
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items() if size > 1)
        return f"{_devices(self.mesh.size)} ({self.strategy}{', ' * bool(axes)}{axes})"

    def check_batch(self, config: TrainConfig) -> None:
        """Raises UserError for a batch that does not divide, naming the nearest that does, or devices that do not."""
        if self.batch_norm_devices and self.parts % self.batch_norm_devices:
            told = f"--batch-norm-devices {self.batch_norm_devices} does not divide the {_devices(self.parts)}"
            raise UserError(f"{told}; take a divisor")
        step = self.parts * config.accumulate
        if config.batch_size % step:
            nearest = max(step, round(config.batch_size / step) * step)
            split = f"{_devices(self.parts)} x {config.accumulate} parts" if config.accumulate > 1 else _devices(step)
            reason = f"a batch of {config.batch_size} does not divide by {split}"
            raise UserError(f"{reason}; the nearest that does is --batch-size {nearest}")

    def check_task(self, task: Any) -> None:
        """Raises UserError if the task's loss cannot be computed from parts of a batch apart."""
        if self.axis and self.parts > 1 and getattr(task, "mixes_examples", False):
            told = f"{type(task).__name__}'s loss joins examples of the whole batch"
            raise UserError(f"{told}, of which --parallel {self.strategy} shows a device only its own; take jit")

    def shardings(self, state: Any) -> Any:
        """How each array of a tree lies: by `RULES`, of which the first that fits its path counts."""
        return jax.tree_util.tree_map_with_path(
            lambda path, array: NamedSharding(self.mesh, self._spec(dotted(path), array.shape)), state
        )

    def _spec(self, path: str, shape: tuple[int, ...]) -> PartitionSpec:
        axes = next((axes for pattern, axes in RULES if re.search(pattern, path)), ())
        if len(axes) > len(shape):
            return PartitionSpec()
        fitting = [
            axis if size % self.mesh.shape[axis] == 0 and self.mesh.shape[axis] > 1 else None
            for axis, size in zip(axes, shape[len(shape) - len(axes) :], strict=True)
        ]
        return PartitionSpec(*(None,) * (len(shape) - len(axes)), *fitting) if any(fitting) else PartitionSpec()

    def abstract(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Shapes of a state and of a whole batch as `lower` takes them, for devices that are not here."""

        def laid(shape: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

        def laid_rows(rows: Any) -> jax.ShapeDtypeStruct:
            size, *others = rows.shape
            by_part = (self.parts, size // self.parts) if self.strategy == "pmap" else (size,)
            return laid(jax.ShapeDtypeStruct((*by_part, *others), rows.dtype), self.rows)

        return jax.tree.map(laid, state, self.shardings(state)), jax.tree.map(laid_rows, batch)

    def place(self, state: Any) -> Any:
        """A training state, of which every process has all, laid out over the mesh."""
        shardings = self.shardings(state)
        if jax.process_count() == 1:
            return jax.device_put(state, shardings)

        def spread(array: Any, sharding: NamedSharding) -> jax.Array:
            host = np.asarray(array)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(spread, state, shardings)

    def spread(self, batch: Any) -> dict[str, jax.Array]:
        """A batch for a program over the whole mesh, from the rows that this process has of it."""
        return {name: jax.make_array_from_process_local_data(self.rows, rows) for name, rows in batch.items()}

    def split(self, batch: Any) -> dict[str, jax.Array]:
        """A batch for the training step, from the rows that this process has of it."""
        if self.strategy == "pmap":
            own = len(self.mesh.local_devices)
            batch = {name: rows.reshape(own, len(rows) // own, *rows.shape[1:]) for name, rows in batch.items()}
        return self.spread(batch)

    def lower(self, step: Callable[[Any, Any], Any], state: Any, batch: Any) -> jax.stages.Lowered:
        """A step `(state, batch) -> (state, figures)` for the mesh, to be compiled; the state's buffers are donated.

        Args:
          step: pure; under `shard_map` and `pmap` it sees a device's rows, and averages over `axis` itself.
          state, batch: as `place` and `split` give them.
        """
        if self.strategy == "pmap":
            mapped: Any = jax.pmap(
                step,
                axis_name=self.axis,
                in_axes=(None, 0),
                out_axes=(None, None),
                donate_argnums=0,
                axis_size=self.parts,
                devices=list(self.mesh.devices.flat),
            )
            return mapped.lower(state, batch)
        if self.strategy == "shard_map":
            whole, rows = PartitionSpec(), self.rows.spec
            # What leaves is the same on every device, since the step averages it; JAX need not prove that.
            step = jax.shard_map(
                step, mesh=self.mesh, in_specs=(whole, rows), out_specs=(whole, whole), check_vma=False
            )
        outputs = (self.shardings(state), self.whole)
        with kernels.batches_over(*self.rows.spec[0]):
            return jax.jit(step, donate_argnums=0, out_shardings=outputs).lower(state, batch)

    def own_copy(self, tree: Any) -> Any:
        """All of every array on this process's first device. All processes are to call it at once."""
        if self.mesh.size == 1:
            return tree
        gathered = jax.jit(_same, out_shardings=self.whole)(tree)
        return jax.tree.map(lambda array: array.addressable_data(0), gathered)


def _same(tree: Any) -> Any:
    """A function of its own, which compiles once."""
    return tree


def _devices(count: int) -> str:
    return f"{count} device{'s' * (count != 1)}"
