"""What turns gradients into steps: AdamW or Muon under a schedule, for all of a network or parts of it."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from zoo.configs import TrainConfig
from zoo.errors import UserError


def make_optimizer(config: TrainConfig, shares: Mapping[str, float] | None = None) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW or Muon under a linear warm-up and a cosine to zero.

    Args:
      shares: of the learning rate, by a parameter's `dotted` path; all of it where none is given. What has none of it
        stays as it is, and costs no optimizer state.

    Raises:
      UserError: the config names another optimizer.
    """

    def schedule(peak: float) -> optax.Schedule:
        warmup = min(config.warmup_steps, config.steps // 4)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config.steps)

    if config.optimizer == "adamw":
        update = optax.adamw(schedule(config.learning_rate), b2=0.98, weight_decay=config.weight_decay)
    elif config.optimizer == "muon":
        update = optax.contrib.muon(
            schedule(config.learning_rate),
            weight_decay=config.weight_decay,
            adam_learning_rate=schedule(config.learning_rate * _ADAM_TO_MUON),
            muon_weight_dimension_numbers=_matrices,
        )
    else:
        raise UserError(f"no optimizer is called {config.optimizer!r}; there are adamw, muon")
    update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    if not shares:
        return update

    def share(path: Any) -> float:
        return shares.get(dotted(path), 1.0)

    def scaled(updates: Any, params: Any) -> Any:
        del params
        return jax.tree_util.tree_map_with_path(lambda path, value: value * share(path), updates)

    def groups(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: "learns" if share(path) else "stays", params)

    learns = optax.chain(update, optax.stateless(scaled))
    return optax.partition({"learns": learns, "stays": optax.set_to_zero()}, groups)


def dotted(path: Any) -> str:
    """A parameter's path in a network's state, as attribute names and list indices with dots between."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


# Muon's updates have spectral norm one, Adam's entries are about one: vectors and thin matrices want smaller steps.
_ADAM_TO_MUON = 0.3
_SMALLEST_MATRIX_SIDE = 16


def _matrices(params: Any) -> Any:
    """Which parameters Muon takes, as matrices of all but the last axis by the last; the rest go to AdamW."""

    def dimensions(parameter: jax.Array) -> Any:
        thin = parameter.ndim < 2 or min(parameter.shape[-1], parameter.size // parameter.shape[-1])
        if parameter.ndim < 2 or thin < _SMALLEST_MATRIX_SIDE:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(parameter.ndim - 1)), parameter.ndim - 1)

    return jax.tree.map(dimensions, params)
