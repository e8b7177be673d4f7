"""Fresh networks whose weights NumPy draws: JAX takes ten seconds and more to compile what draws a large one's."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import hub, registry


def network(arch: str, **options: Any) -> Any:
    """As `registry.create` makes it, but for the values: He normal kernels, scales and variances of one, zeros."""
    model = nnx.eval_shape(lambda: registry.create(arch, **options))
    graph, random, arrays = nnx.split(model, nnx.RngState, ...)
    draw = np.random.default_rng(0)

    def fill(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        shape = variable.get_value().shape
        if path[-1] in ("scale", "var"):
            value = np.ones(shape)
        elif len(shape) > 1:
            value = draw.normal(size=shape) * np.sqrt(2 / math.prod(shape[:-1]))
        else:
            value = np.zeros(shape)
        return variable.replace(jnp.asarray(value, variable.get_value().dtype))

    return nnx.merge(graph, hub._concrete(random), nnx.map_state(fill, arrays))
