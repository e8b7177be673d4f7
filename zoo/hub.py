"""Where weights come from, and how they are kept: Orbax trees that restore on any device.

A weight tree is a nested dict with string keys, one array for each variable of the network except its random state:
the parameters and the batch statistics. `fetch` looks for a card's tree in the repository's checkpoints/, then in the
cache, then in the published package or at the published address; what comes from there is converted once. The cache:

    weights/<name>-<key>/    converted trees, with the SHA-256 of each file, and files kept as they are
    downloads/               wheels and files that a user put there by hand; looked at before the network
    seen/                    the SHA-256 of files whose publishers tell a part of it or nothing, as they were first seen
    compiled/                XLA's compiled programs
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from flax import nnx

from zoo import download, registry
from zoo.download import check_sha256, sha256_of
from zoo.errors import UserError, refused_by_system
from zoo.registry import ModelCard

# A checkpoint is committed to git, where a file stays below 20 MB: data files are closed once they hold 12 MiB, and the
# chunk that crosses the line is at most 4 MiB.
_DATA_FILE_BYTES = 12 * 2**20
_CHUNK_BYTES = 4 * 2**20
_COMPILATION_CACHE_BYTES = 2 * 2**30

type Placement = jax.sharding.Sharding | Callable[[tuple[str, ...], tuple[int, ...]], jax.sharding.Sharding]
"""One sharding for every array, or a function of an array's path and shape."""


def cache_folder() -> Path:
    """Where converted weights and compiled programs are kept: `ZOO_CACHE`, else the system's place for caches."""
    chosen = os.environ.get("ZOO_CACHE") or platformdirs.user_cache_dir("jax-video-zoo", appauthor=False)
    return Path(chosen).expanduser().absolute()


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes, at most 2 GiB of them, so that only the first run waits for XLA.

    `ZOO_COMPILATION_CACHE` moves the folder or, as "off", turns it off; one that JAX was already given stays. A folder
    that cannot be written costs the cache, with a notice, and nothing else.
    """
    chosen = os.environ.get("ZOO_COMPILATION_CACHE")
    if chosen == "off" or jax.config.jax_compilation_cache_dir:
        return
    folder = Path(chosen).expanduser() if chosen else cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        warnings.warn(f"{folder} cannot be written: programs are compiled anew in each process", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _COMPILATION_CACHE_BYTES)


def fetch(card: ModelCard) -> Path:
    """The folder of a card's weight tree, every file of it checked against its SHA-256.

    Raises:
      UserError: the files are damaged, cannot be fetched, or cannot be written. What the cache held stays, and nothing
        half-written is left.
    """
    source = card.source
    if source.kind == "checkpoint":
        folder = Path(str(registry.checkpoints_folder())) / card.name
        for name, expected in source.files.items():
            check_sha256(folder / name, expected, str(folder / name), "get the project anew")
        return folder / "weights"
    what = json.dumps([dataclasses.asdict(source), card.arch, card.options], sort_keys=True)
    entry = cache_folder() / "weights" / f"{card.name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    if not _is_intact(entry):
        shutil.rmtree(entry, ignore_errors=True)
        if jax.process_count() > 1:
            _fill_apart(card)
        else:
            _fill(entry, card)
    return entry / "weights"


def kept_file(card: ModelCard, name: str) -> Path:
    """A file that came with a card's weights and is used as it is, such as a tokenizer; `name` is without folders.

    Raises:
      UserError: as `fetch`.
    """
    return fetch(card).parent / name


def _fill_apart(card: ModelCard) -> None:
    """Fetches in a process that is not one of many: Orbax lets these write one folder together only."""
    script = "import sys; from zoo import hub, registry; hub.fetch(registry.card(sys.argv[1]))"
    command = [sys.executable, "-c", script, card.name]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().rpartition("UserError: ")[2])


def _fill(entry: Path, card: ModelCard) -> None:
    """Fetches and converts a card's weights. Of two processes that do so at once, the first one's result is kept."""
    from rich.console import Console

    where = card.source.requirement or card.source.url
    way_out = "set ZOO_CACHE to a folder that can be written and has room"
    with (
        new_folder(entry, replace=False, way_out=way_out) as new,
        Console(stderr=True).status(f"fetching the weights of {card.name} from {where}, once"),
    ):
        places = {"by_hand": cache_folder() / "downloads", "seen": cache_folder() / "seen"}
        paths = download.files_of(card.source, new.parent, **places)
        layout = importlib.import_module(f"zoo.convert.{card.source.convert}")
        model = nnx.eval_shape(lambda: registry.create(card.arch, **card.options))
        kept = {
            name: path for name, path in zip(card.source.files, paths, strict=True) if name in (card.source.kept or ())
        }
        tree = layout.convert(layout.read(*(path for path in paths if path not in kept.values())), model)
        _check_fit(dict(_leaves(tree)), dict(_leaves(weights_of(model))), f"the weights from {where}")
        download.remember(card.source, paths[0], new.parent, seen=places["seen"])
        _write_tree(tree, new / "weights")
        for name, path in kept.items():
            shutil.copyfile(path, new / Path(name).name)
        written = {str(path.relative_to(new)): sha256_of(path) for path in new.rglob("*") if path.is_file()}
        (new / "files.json").write_text(json.dumps(written, indent=2), encoding="utf-8")


def _is_intact(entry: Path) -> bool:
    try:
        files = json.loads((entry / "files.json").read_text(encoding="utf-8"))
        return all(sha256_of(entry / name) == expected for name, expected in files.items())
    except (OSError, ValueError):
        return False


def weights_of(model: nnx.Module) -> dict[str, Any]:
    """The weight tree of a network, abstract (from `nnx.eval_shape`) or real; list indices become string keys."""

    def named(node: Any) -> Any:
        return {str(key): named(value) for key, value in node.items()} if isinstance(node, dict) else node

    return named(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))


def save_weights(tree: dict[str, Any], directory: str | Path, dtype: Any = np.float32) -> None:
    """Writes a weight tree as an Orbax checkpoint in which no file reaches 20 MB.

    Arrays are gathered from their devices first and floating-point ones become `dtype`, so the checkpoint does not
    remember where or in which precision the network ran. A checkpoint that is already there is replaced at the end.

    Raises:
      UserError: the folder cannot be written, or the disk is full; nothing half-written stays.
    """
    with new_folder(Path(directory).absolute()) as new:
        _write_tree(tree, new, dtype)


def _write_tree(tree: dict[str, Any], directory: Path, dtype: Any = np.float32) -> None:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.ocdbt_target_data_file_size = _DATA_FILE_BYTES
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array.saving.enable_write_sharding_file = False
    with context:
        ocp.save(str(directory), jax.tree.map(functools.partial(_host_array, dtype=dtype), tree))
    # Orbax writes this machine's path into it; only the file's presence is ever asked for.
    (directory / "commit_success.txt").write_text("committed\n", encoding="utf-8")


@contextlib.contextmanager
def new_folder(directory: Path, *, replace: bool = True, way_out: str = "") -> Iterator[Path]:
    """Gives a path to make a folder at, which takes the place of `directory` once all is written.

    Its parent is an empty folder for whatever is needed on the way. `replace=False` keeps a `directory` that came to be
    meanwhile.

    Raises:
      UserError: the system refuses; the message ends with `way_out`. Nothing half-written stays.
    """
    workplace = directory.parent / f".{directory.name}.{uuid.uuid4().hex}"
    new = workplace / "new"
    try:
        workplace.mkdir(parents=True)
        yield new
        if replace and directory.exists():
            directory.rename(workplace / "old")
        try:
            new.rename(directory)
        except OSError:
            if replace or not directory.exists():
                raise
    except (OSError, ValueError) as error:
        reason = refused_by_system(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {directory}: {reason}" + (f"; {way_out}" if way_out else "")) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def load_weights(model: nnx.Module, card: ModelCard, **placing: Any) -> nnx.Module:
    """A copy of `model` with a published model's weights; `placing` as for `restore_weights`.

    Raises:
      UserError: they cannot be had, or do not fit.
    """
    beneath = {path: fetch(registry.card(name)) for path, name in (card.source.beneath or {}).items()}
    return restore_weights(model, fetch(card), beneath=beneath, **placing)


def restore_weights(
    model: nnx.Module,
    directory: str | Path,
    *,
    beneath: Mapping[str, Path] | None = None,
    sharding: Placement | None = None,
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
    dtype: Any = None,
) -> nnx.Module:
    """A copy of `model` with the weights that lie in `directory`, wherever they were written.

    Args:
      model: tells names and shapes; abstract (from `nnx.eval_shape`) or real. It is left as it was.
      beneath: checkpoints of parts of the network, by the part's path, for what `directory` does not hold.
      sharding: one for every array, or a function of an array's path and shape.
      device: where the arrays go if no sharding is given; JAX's default device if neither is.
      dtype: floating-point parameters are cast to it; without it all arrays are float32, as batch statistics always
        are, in whatever precision they were stored.

    Raises:
      UserError: no checkpoint is there, or its names and shapes are not the network's; all differences are told.
    """
    from orbax.checkpoint import v1 as ocp

    parts = {tuple(filter(None, path.split("."))): Path(folder).absolute() for path, folder in (beneath or {}).items()}
    parts[()] = Path(directory).absolute()  # the last, and so above the others
    found = {prefix: _stored(folder) for prefix, folder in parts.items()}
    stored = {(*prefix, *name): array for prefix, arrays in found.items() for name, array in arrays.items()}
    graph, parameters, random, rest = nnx.split(model, nnx.Param, nnx.RngState, ...)
    _check_fit(stored, dict(_leaves(weights_of(model))), f"the weights in {directory}")
    default = jax.sharding.SingleDeviceSharding(device) if device else jnp.zeros(()).sharding
    casts = {tuple(map(str, path)) for path, _ in nnx.to_flat_state(parameters)} if dtype else set()

    def target(path: tuple[str, ...], array: Any) -> jax.ShapeDtypeStruct:
        chosen = sharding(path, array.shape) if callable(sharding) else sharding or default
        try:
            chosen.shard_shape(array.shape)
        except ValueError as error:
            raise UserError(f"{'.'.join(path)} {array.shape} cannot be laid out as {chosen}") from error
        kept = jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype
        return jax.ShapeDtypeStruct(array.shape, dtype if path in casts else kept, sharding=chosen)

    weights = {}
    for prefix, folder in parts.items():
        wanted = _nest({name: target((*prefix, *name), array) for name, array in found[prefix].items()})
        weights |= {(*prefix, *name): array for name, array in _leaves(ocp.load(str(folder), wanted))}

    def fill(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        return variable.replace(weights[tuple(map(str, path))])

    return nnx.merge(graph, nnx.map_state(fill, parameters), _concrete(random), nnx.map_state(fill, rest))


def _stored(directory: Path) -> dict[tuple[str, ...], Any]:
    """Paths, shapes and dtypes of what a checkpoint holds."""
    from orbax.checkpoint import v1 as ocp

    try:
        stored = ocp.metadata(str(directory.absolute())).metadata
    except (OSError, ocp.errors.InvalidLayoutError) as error:
        raise UserError(f"{directory} holds no checkpoint") from error
    if not isinstance(stored, dict):
        raise UserError(f"the checkpoint in {directory} is damaged: it does not say what it holds")
    return dict(_leaves(stored))


def start_from(model: nnx.Module, part_path: str, card: ModelCard, leave_out: Collection[str] = ()) -> None:
    """Puts a published model's weights into a part of a network, in place.

    Arrays that have more axes there are summed over the first of them: a 2D network starts from a 3D one as that sees a
    picture that does not move.

    Args:
      part_path: of the part, as attribute names with dots between; "" is the whole network.
      leave_out: arrays of the part that stay as they are, as attribute names with dots between.

    Raises:
      UserError: the weights cannot be had, or do not fit.
    """
    part: Any = model
    for name in filter(None, part_path.split(".")):
        part = getattr(part, name)
    published = nnx.eval_shape(lambda: registry.create(card.arch, **card.options))
    stored = dict(_leaves(weights_of(load_weights(published, card))))
    expected = dict(_leaves(weights_of(part)))
    for path, array in stored.items():
        more = array.ndim - expected[path].ndim if path in expected else 0
        stored[path] = array.sum(axis=tuple(range(more))) if more > 0 else array
    stored |= {path: array for path, array in expected.items() if ".".join(path) in leave_out}
    _check_fit(stored, expected, f"the weights of {card.name}")

    def fill(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        return variable.replace(stored[tuple(map(str, path))])

    nnx.update(part, nnx.map_state(fill, nnx.state(part, nnx.Not(nnx.RngState))))


def _concrete(random: nnx.State) -> nnx.State:
    """An abstract network has abstract random keys: each gets one of its own, and counts from zero."""

    def start(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        value = variable.get_value()
        if not isinstance(value, jax.ShapeDtypeStruct):
            return variable.replace(value)
        if not isinstance(variable, nnx.RngKey):
            return variable.replace(jnp.zeros(value.shape, value.dtype))
        seed = int.from_bytes(hashlib.sha256(repr(path).encode()).digest()[:4])
        return variable.replace(jax.random.split(jax.random.key(seed), value.shape))

    return nnx.map_state(start, random)


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


def _host_array(value: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array
