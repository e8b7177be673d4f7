"""Tensors out of files that `torch.save` wrote, without PyTorch and without running anything that a file holds.

Both formats are read: the zip archive, and the row of pickles that came before it (PyTorch 0.1.10 to 1.5). In either, a
pickle tells the tensors' names, shapes and strides, and the numbers lie beside it. Of all that a pickle can ask for,
dicts, storages of plain numbers and strided tensors over them are given; the first other name ends the reading.

The layouts of single networks (`zoo.convert.<architecture>`) read through this file and share its transforms.
"""

import io
import math
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from zoo.convert import Row, as_is
from zoo.errors import UserError

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}

_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickled number, torch's MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a file, read-only, by name; the keys of nested dicts are joined with ".".

    What is no tensor (an epoch, a configuration) is left out. bfloat16 stays bfloat16. Strides are kept, so an array is
    a view of what the file stores, and tensors that shared memory still do.

    Raises:
      UserError: no such file, not PyTorch's, cut short or damaged, without tensors, or asking for anything else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY_START))
            file.seek(0)
            if start.startswith(_ZIP_START):
                tree, storages = _read_zip(file)
            elif start == _LEGACY_START:
                tree, storages = _read_legacy(file)
            else:
                raise _RefusedError("it is no file that torch.save writes")
        tensors = {name: _array(tensor, storages) for name, tensor in _tensors(tree)}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except _RefusedError as error:
        raise UserError(
            f"cannot read {path}: {error}; give a state_dict of plain tensors, saved by torch.save"
        ) from error
    except _DAMAGE as error:
        raise UserError(f"cannot read {path}: it is damaged or cut short ({error}); download it again") from error
    if not tensors:
        raise UserError(f"{path} holds no tensors; give a state_dict of plain tensors, saved by torch.save")
    return tensors


def without_counters(foreign: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves out how many batches each batch normalisation has seen, which no network here counts."""
    return {name: array for name, array in foreign.items() if not name.endswith(".num_batches_tracked")}


def within(foreign: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The tensors of one dict of a file that holds several, under their own names; all, if it has no such dict."""
    prefix = f"{part}."
    found = {name.removeprefix(prefix): array for name, array in foreign.items() if name.startswith(prefix)}
    return found or foreign


def unit_rows(conv: str, norm: str, ours: str) -> list[Row]:
    """Rows of a table for a convolution without bias and its batch normalisation: our `ours`.conv and `ours`.norm."""
    return [(rf"{conv}\.weight", f"{ours}.conv.kernel", kernel), *norm_rows(norm, f"{ours}.norm")]


def norm_rows(norm: str, ours: str) -> list[Row]:
    """Rows of a table for a batch normalisation."""
    return [(rf"{norm}\.{theirs}", f"{ours}.{leaf}", as_is) for theirs, leaf in _NORM.items()]


def dense_rows(dense: str, ours: str) -> list[Row]:
    """Rows of a table for a fully connected layer."""
    return [(rf"{dense}\.weight", f"{ours}.kernel", dense_kernel), (rf"{dense}\.bias", f"{ours}.bias", as_is)]


_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def kernel(array: np.ndarray) -> np.ndarray:
    """The transform for a convolution: `[F, C / groups, *window]` to `[*window, C / groups, F]`, depthwise or not."""
    return np.moveaxis(array, (1, 0), (-2, -1))


def dense_kernel(array: np.ndarray) -> np.ndarray:
    """The transform for a fully connected layer's weight: `[F, C]` to `[C, F]`."""
    return array.T


class _RefusedError(Exception):
    """The file may be sound, but this is nothing that we read."""


# What a file that was tampered with or cut short makes pickle, zipfile and the code below stumble on.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


class _Storage(NamedTuple):
    """A row of numbers that tensors look at; `key` is its name in the file."""

    key: str
    dtype: np.dtype
    length: int

    @property
    def num_bytes(self) -> int:
        return self.length * self.dtype.itemsize


# A pickle can set attributes of whatever it holds, of the stand-ins below too, unless their __setstate__ is in the way.


class _Dict(dict):
    """Stands in for collections.OrderedDict; what PyTorch notes on one (versions of modules) is forgotten."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Tensor:
    """Stands in for torch._utils._rebuild_tensor_v2: a view of a storage, in elements."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("it holds a tensor with attributes")


class _Parameter:
    """Stands in for torch._utils._rebuild_parameter, which wraps a tensor."""

    def __new__(cls, tensor: _Tensor, *_: Any) -> _Tensor:
        return tensor

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("it holds a parameter with attributes")


class _TensorsOnly(pickle.Unpickler):
    """Gives a harmless stand-in for each of the few names that a dict of tensors needs, and nothing for any other."""

    _STAND_INS = {  # noqa: RUF012
        ("collections", "OrderedDict"): _Dict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): _Parameter,
        **{("torch", name): name for name in _DTYPES},
    }

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._STAND_INS[module_name, global_name]
        except KeyError:
            raise _RefusedError(f"it asks for {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", type, key, device, length); a sixth item is None since PyTorch 0.4."""
        kind, name, key, _, length, *view = pid
        if kind != "storage" or view not in ([], [None]):
            raise _RefusedError(f"it asks for a {kind} in a form older than PyTorch 0.4")
        storage = _Storage(str(key), _DTYPES[name], int(length))
        if self.storages.setdefault(storage.key, storage) != storage or storage.length < 0:
            raise ValueError(f"storage {key} is described twice or wrongly")
        return storage


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """An archive of one folder: data.pkl, a file data/<key> for each storage and, since PyTorch 2.1, the byte order."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        folder = names[0].partition("/")[0]
        unpickler = _TensorsOnly(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        tree = unpickler.load()
        order = archive.read(f"{folder}/byteorder").decode() if f"{folder}/byteorder" in names else "little"
        arrays = {}
        for key, storage in unpickler.storages.items():
            member = archive.getinfo(f"{folder}/data/{key}")
            if member.file_size != storage.num_bytes:
                raise ValueError(f"storage {key} has {member.file_size} bytes instead of {storage.num_bytes}")
            arrays[key] = _numbers(archive.read(member), storage, {"little": "<", "big": ">"}[order])
    return tree, arrays


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Pickles in a row (magic number, version, system, tensors, order of storages); each storage after its length."""
    _, version, _ = (_TensorsOnly(file).load() for _ in range(3))
    if version != _LEGACY_PROTOCOL:
        raise _RefusedError(f"its format is of version {version}")
    unpickler = _TensorsOnly(file)
    tree = unpickler.load()
    keys = _TensorsOnly(file).load()
    end = os.fstat(file.fileno()).st_size
    arrays = {}
    for key in keys:
        storage = unpickler.storages[key]
        length = int.from_bytes(file.read(8), "little")  # the format is little-endian wherever it is written
        if length != storage.length or storage.num_bytes > end - file.tell():
            raise ValueError(f"storage {key} is not whole")
        arrays[key] = _numbers(file.read(storage.num_bytes), storage, "<")
    return tree, arrays


def _numbers(data: bytes, storage: _Storage, order: str) -> np.ndarray:
    # Read as whole numbers, because NumPy cannot swap the bytes of a bfloat16.
    size = storage.dtype.itemsize
    numbers = np.frombuffer(data, f"{order}u{size}").astype(f"u{size}", copy=False).view(storage.dtype)
    numbers.flags.writeable = False
    return numbers


def _tensors(tree: Any) -> Iterator[tuple[str, _Tensor]]:
    """Names and tensors in nested dicts, depth first."""
    seen: set[int] = set()  # a dict inside itself, or one dict in a thousand places, would never end

    def walk(node: Any, name: str) -> Iterator[tuple[str, _Tensor]]:
        if isinstance(node, _Tensor):
            yield name, node
        elif isinstance(node, dict):
            if id(node) in seen:
                raise _RefusedError("it holds the same dict twice")
            seen.add(id(node))
            for key, value in node.items():
                yield from walk(value, f"{name}.{key}" if name else str(key))

    return walk(tree, "")


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    numbers = storages[tensor.storage.key]
    offset, size, stride = tensor.offset, tuple(tensor.size), tuple(tensor.stride)
    if not all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)):
        raise ValueError(f"a tensor of shape {size} with strides {stride} at {offset}")
    if math.prod(size) == 0:
        return np.zeros(size, numbers.dtype)
    # Beyond the storage lies memory that is not ours.
    if offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True)) >= len(numbers):
        raise ValueError(f"a tensor of shape {size} with strides {stride} at {offset} leaves its storage")
    steps = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)
