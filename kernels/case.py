"""A named call of a kernel with the shapes that a model has there: what tests, tuning and benchmarks share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """`operation(*arrays of these shapes and dtype, **options)`, as the public function takes them.

    `name` says which layer it is; `model` names the network, and its input where that is not the published one.
    """

    name: str
    model: str
    operation: str
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
