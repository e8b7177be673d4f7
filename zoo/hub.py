"""Where weights come from, and how they are kept: Orbax trees that restore on any device.

A weight tree is a nested dict with string keys, one array for each variable of the network except its random state: the
parameters and the batch statistics.
"""

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.errors import UserError

# A checkpoint is committed to git, where a file stays below 20 MB: data files are closed once they hold 12 MiB, and the
# chunk that crosses the line is at most 4 MiB.
_DATA_FILE_BYTES = 12 * 2**20
_CHUNK_BYTES = 4 * 2**20

Placement = jax.sharding.Sharding | Callable[[tuple[str, ...], tuple[int, ...]], jax.sharding.Sharding]
"""One sharding for every array, or a function of an array's path and shape."""


def weights_of(model: nnx.Module) -> dict[str, Any]:
    """The weight tree of a network, abstract (from `nnx.eval_shape`) or real; list indices become string keys."""

    def named(node: Any) -> Any:
        return {str(key): named(value) for key, value in node.items()} if isinstance(node, dict) else node

    return named(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))


def save_weights(tree: dict[str, Any], directory: str | Path) -> None:
    """Writes a weight tree as an Orbax checkpoint in which no file reaches 20 MB.

    Arrays are gathered from their devices first and floating-point ones become float32, so the checkpoint does not
    remember where or in which precision the network ran. A checkpoint that is already there is replaced at the end.

    Raises:
      UserError: the folder cannot be written, or the disk is full; nothing half-written stays.
    """
    from orbax.checkpoint import v1 as ocp

    directory = Path(directory).absolute()
    context = ocp.Context()
    context.array.saving.ocdbt_target_data_file_size = _DATA_FILE_BYTES
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array.saving.enable_write_sharding_file = False
    with new_folder(directory) as partial, context, _quiet_orbax():
        ocp.save(partial, jax.tree.map(_host_array, tree))


@contextlib.contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """Gives a path to write a folder at, which takes the place of `directory` once all is written."""
    workplace = directory.parent / f".{directory.name}.{uuid.uuid4().hex}"
    try:
        workplace.mkdir(parents=True)
        yield workplace / "new"
        if directory.exists():
            directory.rename(workplace / "old")
        (workplace / "new").rename(directory)
    except (OSError, ValueError) as error:
        reason = _refused_by_system(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {directory}: {reason}") from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def restore_weights(
    model: nnx.Module,
    directory: str | Path,
    *,
    sharding: Placement | None = None,
    device: jax.Device | None = None,
    dtype: Any = None,
) -> nnx.Module:
    """A copy of `model` with the weights that lie in `directory`, wherever they were written.

    Args:
      model: tells names and shapes; abstract (from `nnx.eval_shape`) or real. It is left as it was.
      sharding: one for every array, or a function of an array's path and shape.
      device: where the arrays go if no sharding is given; JAX's default device if neither is.
      dtype: floating-point arrays are cast to it; as stored (float32) without.

    Raises:
      UserError: no checkpoint is there, or its names and shapes are not the network's; all differences are told.
    """
    from orbax.checkpoint import v1 as ocp

    directory = Path(directory).absolute()
    try:
        stored = dict(_leaves(ocp.metadata(directory).metadata))
    except (OSError, ocp.errors.InvalidLayoutError) as error:
        raise UserError(f"{directory} holds no checkpoint") from error
    expected = dict(_leaves(weights_of(model)))
    _check_fit(stored, expected, f"the weights in {directory}")

    default = jax.sharding.SingleDeviceSharding(device) if device else jnp.zeros(()).sharding

    def place(path: tuple[str, ...], array: Any) -> jax.ShapeDtypeStruct:
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        chosen = default if sharding is None else sharding if not callable(sharding) else sharding(path, array.shape)
        try:
            chosen.shard_shape(array.shape)
        except ValueError as error:
            raise UserError(f"{'.'.join(path)} {array.shape} cannot be sharded as {chosen}") from error
        return jax.ShapeDtypeStruct(array.shape, dtype if dtype and floating else array.dtype, sharding=chosen)

    weights = ocp.load(directory, _nest({path: place(path, array) for path, array in stored.items()}))
    return _with_weights(model, dict(_leaves(weights)))


def _with_weights(model: nnx.Module, weights: dict[tuple[str, ...], jax.Array]) -> nnx.Module:
    graph, random, state = nnx.split(model, nnx.RngState, ...)
    random = _concrete_random_state(random)
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(weights[tuple(map(str, path))])
    return nnx.merge(graph, random, state)


def _concrete_random_state(random: nnx.State) -> nnx.State:
    """An abstract network has abstract keys too: each gets its own, counted from zero."""
    for index, (_, variable) in enumerate(nnx.to_flat_state(random)):
        value = variable.get_value()
        if isinstance(value, jax.ShapeDtypeStruct):
            if isinstance(variable, nnx.RngKey):
                variable.set_value(jax.random.split(jax.random.key(index), value.shape))
            else:
                variable.set_value(jnp.zeros(value.shape, value.dtype))
    return random


def _check_fit(stored: dict[tuple[str, ...], Any], expected: dict[tuple[str, ...], Any], what: str) -> None:
    missing = [".".join(path) for path in expected if path not in stored]
    extra = [".".join(path) for path in stored if path not in expected]
    shapes = [
        f"{'.'.join(path)} is {tuple(stored[path].shape)} instead of {tuple(array.shape)}"
        for path, array in expected.items()
        if path in stored and tuple(stored[path].shape) != tuple(array.shape)
    ]
    problems = (
        [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(extra)}"] * bool(extra) + shapes
    )
    if problems:
        raise UserError(f"{what} do not fit the network: {'; '.join(problems)}")


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _nest(leaves: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree


def _host_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _refused_by_system(error: Exception) -> str | None:
    """Why the operating system refused, if that is what the error says: tensorstore tells it inside a ValueError."""
    if isinstance(error, OSError):
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Orbax logs a failed write once for each of its threads, with tracebacks; the exception tells it all."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
