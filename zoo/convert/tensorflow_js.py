"""Weights out of TensorFlow.js graph models: a .json that names them, and files of plain numbers beside it.

The layouts of single networks (`zoo.convert.<architecture>`) read through this file and share its transforms. Nothing
of the graph is run.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UserError

# What numbers may be stored as; a quantised weight is stored as one of the first two and means `scale * number + min`.
_STORED = ("uint8", "uint16", "float16", "float32", "int32", "bool")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All weights and constants of a graph model, by name, dequantised.

    Args:
      path: the .json; its files of numbers lie in the same folder.

    Raises:
      UserError: no such file, not a graph model, or its numbers are missing or of another count.
    """
    path = Path(path)
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        arrays: dict[str, np.ndarray] = {}
        for group in groups:
            files = [_beside(path, name) for name in group["paths"]]
            arrays |= _arrays(b"".join(file.read_bytes() for file in files), group["weights"])
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; keep its .bin files beside it") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path} is no TensorFlow.js graph model, or a damaged one ({error})") from error
    if not arrays:
        raise UserError(f"{path} holds no weights")
    return arrays


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ValueError(f"its numbers are at {name!r}, which is not beside it")
    return path.with_name(name)


def _arrays(data: bytes, entries: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    arrays, offset = {}, 0
    for entry in entries:
        quantised = entry.get("quantization")
        stored = (quantised or entry)["dtype"]
        if stored not in _STORED:
            raise ValueError(f"{entry['name']} is stored as {stored!r}, which is not read here")
        shape, dtype = tuple(entry["shape"]), np.dtype(stored).newbyteorder("<")
        count = math.prod(shape)
        array = np.frombuffer(data, dtype, count, offset).reshape(shape).astype(entry["dtype"])
        if quantised and "scale" in quantised:
            array = array * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        arrays[entry["name"]] = array
        offset += count * dtype.itemsize
    if offset != len(data):
        raise ValueError(f"its numbers are {len(data)} bytes instead of {offset}")
    return arrays


def without_constants(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves out scalars and whole numbers, which are a graph's constants."""
    return {name: array for name, array in arrays.items() if array.ndim and array.dtype == np.float32}


def depthwise_kernel(array: np.ndarray) -> np.ndarray:
    """The transform for a depthwise convolution: `[*window, C, 1]` to `[*window, 1, C]`."""
    return np.swapaxes(array, -2, -1)
