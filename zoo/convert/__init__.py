"""Foreign weights to ours: one file a foreign layout, each a table of their names to our paths.

A layout's file has two functions: `read(path) -> dict[str, ndarray]`, which runs nothing that the file holds, and
`convert(foreign, model) -> tree`, which returns the weight tree that `zoo.hub.save_weights` takes.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.errors import UserError
from zoo.hub import weights_of

type Row = tuple[str, str, Callable[[np.ndarray], np.ndarray]]
"""A pattern that a foreign name matches whole, our dotted path as `re.Match.expand` takes it, and a transform."""


def as_is(array: np.ndarray) -> np.ndarray:
    """The transform for an array that both sides lay out alike."""
    return array


def apply_table(table: Sequence[Row], foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """The weight tree of `model` with values from `foreign`; arrays take our dtype.

    Args:
      table: rows `(pattern, path, transform)`; the first row whose pattern matches a foreign name decides.
      foreign: arrays by their foreign names.
      model: tells our paths, shapes and dtypes; abstract (from `nnx.eval_shape`) or real.

    Raises:
      UserError: the two sides do not match one to one. All names that are missing, unknown, given twice or of another
        shape are in its message.
    """
    expected = {_dotted(path): array for path, array in jax.tree.leaves_with_path(weights_of(model))}
    origins: dict[str, str] = {}
    values: dict[str, np.ndarray] = {}
    unknown, twice, misshapen = [], [], []
    for name, array in foreign.items():
        path, transform = _translate(table, name)
        if path not in expected:
            unknown.append(name)
        elif path in origins:
            twice.append(f"{path} from {origins[path]} and {name}")
        else:
            origins[path] = name
            wanted = expected[path]
            try:
                value = np.asarray(transform(array), wanted.dtype)
            except ValueError as error:  # such as a transposition of an array that has too few axes
                misshapen.append(f"{name} {array.shape} cannot become {path} {wanted.shape}: {error}")
                continue
            if value.shape != wanted.shape:
                misshapen.append(f"{name} {array.shape} gives {value.shape} instead of {wanted.shape} for {path}")
            values[path] = value
    missing = [path for path in expected if path not in origins]
    problems = {"missing": missing, "unknown": unknown, "given twice": twice, "wrong shape": misshapen}
    if any(problems.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise UserError(f"these weights do not fit {type(model).__name__}; {told}")
    return jax.tree.map_with_path(lambda path, _: values[_dotted(path)], weights_of(model))


def _translate(table: Sequence[Row], name: str) -> tuple[str | None, Callable[[np.ndarray], np.ndarray]]:
    for pattern, path, transform in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(path), transform
    return None, as_is


def _dotted(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
