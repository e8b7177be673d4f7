"""A named call of a kernel with the shapes that a model has there: what tests, tuning and benchmarks share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import pairs, per_axis

POOLS = ("max_pool", "avg_pool")


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

    def resolved(self) -> tuple[list[jax.ShapeDtypeStruct], dict[str, Any]]:
        """What the public function hands to an implementation: operands with one batch axis, options written out."""
        given, (x, *others) = self.options, self.shapes
        window = tuple(given["window"]) if self.operation in POOLS else others[0][:-2]
        axes = len(window)
        batch, spatial = x[: -axes - 1], x[-axes - 1 : -1]
        strides = per_axis(given.get("strides", window if self.operation in POOLS else 1), axes, "strides")
        default = "VALID" if self.operation in POOLS else "SAME"
        padding = pairs(given.get("padding", default), spatial, window, strides, (1,) * axes)
        options: dict[str, Any] = {"strides": strides, "padding": padding}
        if self.operation in POOLS:
            options = {"window": window} | options
        elif self.operation == "conv":
            options |= {"dilation": (1,) * axes, "groups": 1}
        elif self.operation == "conv_bias_act_pool":
            pool = tuple(given["window"])
            options = {"activation": given["activation"], "window": pool} | options
            options |= {"pool_strides": pool, "pool_padding": ((0, 0),) * axes}
        shapes = [(math.prod(batch), *x[len(batch) :]), *others]
        return [jax.ShapeDtypeStruct(shape, jnp.dtype(self.dtype)) for shape in shapes], options
