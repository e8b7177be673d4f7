"""Reconstruction: a variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114) learns to code clips."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.data import encode
from zoo.precision import as_parameters
from zoo.tasks.classification import to_float
from zoo.tasks.generation import to_pixels


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of a network as in `zoo.models.video_vae`, and a small price for what its latents tell.

    A batch is `{"video": uint8 [B, T, H, W, C]}`. The figures are the squared error and the Kullback-Leibler
    divergence of the latents from a standard normal distribution, both as means, and the latents' mean square.

    Args:
      price: of the divergence, in units of the squared error of pixels from -1 to 1.
      coding: also learn to code, not to decode alone: without, what was learnt on the latents stays of use.
      shown: held-out videos of which `show` draws strips.
      strips: uint8 [shown, T, H, W, C], which `prepared` takes from the data.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)

    price: float = 3e-4
    coding: bool = True
    shown: int = 4
    strips: Any = None

    def prepared(self, train: Any, held_out: Any) -> tuple["Reconstruction", Any, Any]:
        strips = np.stack([held_out[index]["video"] for index in range(min(self.shown, len(held_out)))])
        return dataclasses.replace(self, strips=strips), train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = to_float(batch["video"])
        coded = model.encode(as_parameters(model, x))
        mean, log_variance = coded if self.coding else jax.lax.stop_gradient(coded)
        latents = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        told = _figures(x, mean, log_variance, model.decode(latents))
        loss = told["squared_error"] + self.price * told["divergence"]
        return loss.mean(), {name: values.mean() for name, values in told.items()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        """Without chance: the latents' means are decoded."""
        del key
        x = to_float(batch["video"])
        mean, log_variance = model.encode(as_parameters(model, x))
        told = _figures(x, mean, log_variance, model.decode(mean))
        return {"loss": told["squared_error"] + self.price * told["divergence"], **told}

    def show(self, model: nnx.Module, folder: Path, step: int, key: jax.Array) -> list[Path]:
        """Writes reconstructions-<step>.png: of each video two rows, as it is and what its latents make of it."""
        made = to_pixels(_reconstructed(*nnx.split(model), self.strips))
        rows = np.stack([self.strips, made], axis=1).reshape(-1, *made.shape[1:])
        path = folder / f"reconstructions-{step:06d}.png"
        return [encode.write_picture(path, encode.strips(rows), enlarge=1)]


def _figures(x: jax.Array, mean: jax.Array, log_variance: jax.Array, made: jax.Array) -> dict[str, jax.Array]:
    """Of each clip, `[B]`."""
    divergence = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance) / 2
    squares = {"squared_error": jnp.square(made - x), "divergence": divergence, "mean_square": jnp.square(mean)}
    return {name: values.astype(jnp.float32).mean(range(1, values.ndim)) for name, values in squares.items()}


@jax.jit(static_argnums=0)
def _reconstructed(graph: nnx.GraphDef, state: nnx.State, video: jax.Array) -> jax.Array:
    model: Any = nnx.merge(graph, state)
    return model(to_float(video))
