"""What a network computes in: the precision of its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float


def as_parameters(model: Any, x: Any) -> Float[jax.Array, "..."]:
    """What a network is given, in the dtype of its parameters; as it is where it has none.

    Layers compute in the wider of their input's and their parameters' dtypes. A float32 clip would lift all that a
    network with bfloat16 parameters keeps for its gradients to twice the bytes, though a TPU rounds each factor of a
    product anyway.
    """
    x, parameters = (
        jnp.asarray(x),
        jax.tree.leaves(nnx.state(model, nnx.Param)) if isinstance(model, nnx.Module) else [],
    )
    return x.astype(jnp.result_type(*parameters)) if parameters else x
