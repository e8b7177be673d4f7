"""Runs a kernel where its batch lies: a sharded or mapped batch is never gathered.

XLA cannot split a custom call such as a Pallas kernel. Left alone it would collect the whole batch on every chip first.
Where it finds out by itself how arrays lie (a mesh of automatic axes under `jit`) it asks us how to split, by
`custom_partitioning`; on TPUs it does not (jax-ml/jax#38196), and has to be told by `batches_over`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

type Role = Literal["batch", "shared", "sum", "kept"]

_told: ContextVar[tuple[str, ...]] = ContextVar("told", default=())


class Refused(Exception):  # noqa: N818, it is an answer, not a fault
    """Raised by an implementation, at trace time, for a call that it does not serve; the message says why."""


@contextmanager
def batches_over(*axes: str) -> Iterator[None]:
    """What is traced within has its batches split over these axes of its mesh, and kernels are split with them.

    For `jit` over a mesh of automatic axes; on TPUs kernels are used there in no other way. A function that is traced
    within keeps what it was traced to. Tracing a kernel raises ValueError where its mesh has no such axis.
    """
    token = _told.set(axes)
    try:
        yield
    finally:
        _told.reset(token)


def _leaf_roles(tree: Any, roles: Sequence[Role]) -> list[Role]:
    """One role a leaf: a tuple's members each have theirs, and all leaves within a member share it."""
    members = tree if isinstance(tree, tuple) else (tree,)
    return [role for member, role in zip(members, roles, strict=True) for _ in jax.tree.leaves(member)]


def over_batch(
    function: Callable[..., Any],
    operands: tuple[Any, ...],
    roles: Sequence[Role],
    result_roles: Sequence[Role],
    when_split: Callable[..., Any] | None = None,
) -> Any:
    """`function(*operands)`, on each device with the part of the batch that lies there.

    Args:
      function: takes the operands; pytrees of arrays in, an array or a tuple of pytrees out.
      operands: arrays, or pytrees of arrays (None is one without leaves).
      roles: for each operand "batch" where the leading axis is the batch, "shared" where all of it is needed.
      result_roles: for each result "batch", or "sum" where the parts' results add up to the whole's, or "kept" where
        parts do not make up a whole, as with a batch that a kernel has packed among other axes.
      when_split: takes the place of `function` where the batch is split. Of "kept" results it gives nothing: zeros.

    Raises:
      Refused: on several TPUs nothing says how the batch lies.
    """
    if jax.sharding.get_abstract_mesh().manual_axes:
        return function(*operands)  # within shard_map the operands are one device's part already
    leaves, structure = jax.tree.flatten(operands)
    leaf_roles = _leaf_roles(operands, roles)
    results = _shapes_of(function, *operands)
    result_structure = jax.tree.structure(results)
    leaf_result_roles = _leaf_roles(results, result_roles)

    def flat(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jax.tree.leaves(function(*jax.tree.unflatten(structure, arrays))))

    def flat_when_split(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        if when_split is None:
            return flat(*arrays)
        part = jax.tree.leaves(when_split(*jax.tree.unflatten(structure, arrays)))
        whole = zip(part, jax.tree.leaves(results), leaf_result_roles, strict=True)
        return tuple(jnp.zeros(of.shape, of.dtype) if role == "kept" else leaf for leaf, of, role in whole)

    partitioned = _partitioned(flat, flat_when_split, leaves, leaf_roles, leaf_result_roles)

    @custom_vmap
    def mapped(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return partitioned(*arrays)

    @mapped.def_vmap
    def fold(size: int, is_mapped: Sequence[bool], *arrays: jax.Array):
        every = list(zip(arrays, is_mapped, leaf_roles, strict=True))
        if not set(leaf_result_roles) <= {"batch"} or any(there for _, there, role in every if role == "shared"):
            # Another kernel, or another sum, for every member of the map: nothing can be shared between them.
            with_all = [a if there else jnp.broadcast_to(a, (size, *a.shape)) for a, there, _ in every]
            outputs = jax.lax.map(lambda arrays: mapped(*arrays), with_all)
            return outputs, (True,) * len(outputs)
        folded = []
        for array, there, role in every:
            if role == "batch":
                array = array if there else jnp.broadcast_to(array, (size, *array.shape))
                array = array.reshape(size * array.shape[1], *array.shape[2:])
            folded.append(array)
        whole = over_batch(flat, tuple(folded), leaf_roles, leaf_result_roles, flat_when_split)
        return tuple(out.reshape(size, -1, *out.shape[1:]) for out in whole), (True,) * len(whole)

    return jax.tree.unflatten(result_structure, mapped(*leaves))


def _shapes_of(function: Callable[..., Any], *operands: Any) -> Any:
    """Shapes of the results, computed without the operands' shardings, which a kernel's blocks could not honour."""
    return jax.eval_shape(function, *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), operands))


def _partitioned(
    flat: Callable[..., tuple[jax.Array, ...]],
    flat_when_split: Callable[..., tuple[jax.Array, ...]],
    leaves: Sequence[jax.Array],
    roles: Sequence[Role],
    result_roles: Sequence[Role],
) -> Callable[..., tuple[jax.Array, ...]]:
    """`flat`, told how to split: along the axes over which the first batched operand is sharded, and no others."""
    if "batch" not in roles:
        return flat
    results = _shapes_of(flat, *leaves)
    first = roles.index("batch")

    def split_over(axes: Any):
        """`flat` for each device's part, and the specs of its operands and results."""

        def on_each_device(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            if not axes:
                return flat(*arrays)
            parts = zip(flat_when_split(*arrays), result_roles, strict=True)
            return tuple(jax.lax.psum(out, axes) if role == "sum" else out for out, role in parts)

        def specs(roles):
            return tuple(PartitionSpec(axes) if role == "batch" else PartitionSpec() for role in roles)

        return on_each_device, specs(roles), specs(result_roles)

    explicit = jax.typeof(leaves[first]).sharding.spec[0]
    if explicit:
        # On a mesh of explicit axes the sharding is a part of the type, and nothing is left for XLA to find out.
        on_each_device, in_specs, out_specs = split_over(explicit)
        return jax.shard_map(on_each_device, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    mesh = jax.typeof(leaves[first]).sharding.mesh
    if mesh.size > 1 and mesh.auto_axes:
        if absent := set(_told.get()).difference(mesh.axis_names):
            names = ", ".join(mesh.axis_names)
            raise ValueError(f"batches_over has {', '.join(sorted(absent))}, which the mesh has not; it has {names}")
        axes = tuple(axis for axis in _told.get() if axis in mesh.auto_axes)
        if axes and leaves[first].shape[0] % prod(mesh.shape[axis] for axis in axes) == 0:
            on_each_device, in_specs, out_specs = split_over(axes)
            return jax.shard_map(on_each_device, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        if mesh.abstract_device.platform == "tpu":
            raise Refused("XLA does not ask how to split it over TPUs; trace it within batches_over or shard_map")

    def partition(mesh, arguments, _):
        spec = arguments[first].sharding.spec
        on_each_device, in_specs, out_specs = split_over(spec[0] if len(spec) else None)
        of_operands, of_results = (tuple(NamedSharding(mesh, s) for s in specs) for specs in (in_specs, out_specs))
        return mesh, on_each_device, of_results, of_operands

    # Under jit, since custom_partitioning takes no function with constants, such as a NumPy array within.
    partitioned = custom_partitioning(jax.jit(flat))
    partitioned.def_partition(partition=partition, sharding_rule=_sharding_rule(leaves, roles, results, result_roles))
    return partitioned


def _sharding_rule(leaves, roles, results, result_roles) -> str:
    """Shardy's einsum-like rule: one letter for the batch, and a name of its own for every other axis.

    The sum over the batch is not told, since `partition` adds the parts itself.
    """
    unique = (f"axis{number}" for number in range(1000))

    def names(arrays, roles):
        each = []
        for array, role in zip(arrays, roles, strict=True):
            axes = [next(unique) for _ in range(array.ndim)]
            if role == "batch":
                axes[0] = "batch"
            each.append(" ".join(axes))
        return ", ".join(each)

    return f"{names(leaves, roles)} -> {names(results, result_roles)}"
