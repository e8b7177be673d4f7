"""Prediction: frames that were seen in, the frames after them out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from zoo.data import encode
from zoo.errors import UserError
from zoo.metrics.frames import figures, mse
from zoo.precision import as_parameters


def to_unit(pixels: Any) -> jax.Array:
    """uint8 pixels to float32, 0 black and 1 white."""
    return jnp.asarray(pixels).astype(jnp.float32) / 255


def to_pixels(frames: Any) -> np.ndarray:
    """The inverse of `to_unit`; what is below black or above white is cut off."""
    return np.round(np.clip(np.asarray(frames, np.float32), 0, 1) * 255).astype(np.uint8)


def last_frame(
    context: Float[Any, "batch time height width channels"], horizon: int
) -> Float[jax.Array, "batch horizon height width channels"]:
    """The simplest prediction: nothing moves any more."""
    return jnp.repeat(context[:, -1:], horizon, axis=1)


def straight_on(
    context: Float[Any, "batch time height width channels"], horizon: int
) -> Float[jax.Array, "batch horizon height width channels"]:
    """Every pixel goes on to change as it did between the last two frames, from black to white at most."""
    last, before = context[:, -1:], context[:, -2:-1]
    ahead = jnp.arange(1, horizon + 1).reshape(1, -1, 1, 1, 1)
    return jnp.clip(last + ahead * (last - before), 0, 1)


BASELINES = {"last_frame": last_frame, "straight_on": straight_on}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Mean squared error of a network as in `zoo.models.roll_out`, recurrent ones under scheduled sampling.

    A batch is `{"video": uint8 [B, T, H, W, C]}`; all after the first `context` frames is to be predicted. The figures
    are those of `zoo.metrics.frames`, averaged over the predicted frames, and the summed squared errors of `BASELINES`.

    Args:
      context: frames that are seen.
      taught: in training a recurrent network is given a true frame in place of its own prediction with a chance that
        falls from 1 to 0 over this share of the steps (Bengio et al. 2015, arXiv:1506.03099).
      shown: held-out videos of which `show` draws strips.
      strips: uint8 [shown, T, H, W, C], which `prepared` takes from the data.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)

    context: int = 10
    taught: float = 0.5
    shown: int = 4
    strips: Any = None

    def prepared(self, train: Any, held_out: Any) -> tuple["Prediction", Any, Any]:
        strips = np.stack([held_out[index]["video"] for index in range(min(self.shown, len(held_out)))])
        if strips.shape[1] <= self.context:
            reason = f"videos of {strips.shape[1]} frames leave nothing to predict behind a context of {self.context}"
            raise UserError(f"{reason}; take longer ones, or a shorter context")
        return dataclasses.replace(self, strips=strips), train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        video = to_unit(batch["video"])
        chance = jnp.clip(1 - batch["progress"] / self.taught, 0, 1) if self.taught else 0.0
        given = jax.random.bernoulli(key, chance, (len(video), video.shape[1] - self.context - 1))
        predictions = model.follow(as_parameters(model, video), self.context, given).astype(jnp.float32)
        error = jnp.square(predictions - video[:, -predictions.shape[1] :]).mean()
        unseen = video[:, self.context :]
        return error, {"mse": mse(predictions[:, -unseen.shape[1] :], unseen).mean(), "given": given.mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        del key  # nothing is drawn
        told = {name: values.mean(axis=1) for name, values in self.by_horizon(model, batch["video"]).items()}
        pixels = np.prod(batch["video"].shape[2:])
        return {"loss": told["mse"] / pixels, **told}

    def by_horizon(self, model: Any, video: Any) -> dict[str, jax.Array]:
        """Of uint8 `[B, T, H, W, C]` each figure of each predicted frame `[B, T - context]`."""
        video = to_unit(video)
        context, truth = video[:, : self.context], video[:, self.context :]
        horizon = truth.shape[1]
        told = figures(model(as_parameters(model, context), horizon).astype(jnp.float32), truth)
        return told | {f"mse_{name}": mse(guess(context, horizon), truth) for name, guess in BASELINES.items()}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        """Writes strips-<step>.png: of each video the context, the truth, the prediction and how far it is off."""
        horizon = self.strips.shape[1] - self.context
        context, truth = np.split(self.strips, [self.context], axis=1)
        guess = to_pixels(predicted(model, to_unit(context), horizon))
        path = folder / f"strips-{step:06d}.png"
        return [encode.write_picture(path, comparison(context, truth, guess), enlarge=1)]


def comparison(context: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """A picture of uint8 videos `[N, T, H, W, C]`: for each four rows, its context, truth, prediction and error."""
    error = np.abs(truth.astype(int) - prediction).astype(np.uint8)
    short = max(0, truth.shape[1] - context.shape[1])
    context = np.pad(context, ((0, 0), (short, 0), (0, 0), (0, 0), (0, 0)))[:, -truth.shape[1] :]
    rows = np.stack([context, truth, prediction, error], axis=1)
    return encode.strips(rows.reshape(-1, *truth.shape[1:]))


def predicted(model: nnx.Module, context: Any, horizon: int) -> np.ndarray:
    """The frames after a context `[B, T, H, W, C]` in the parameters' precision, as float32; compiled once a shape."""
    return np.asarray(_predicted(*nnx.split(model), context, horizon))


@jax.jit(static_argnums=(0, 3))
def _predicted(graph: nnx.GraphDef, state: nnx.State, context: jax.Array, horizon: int) -> jax.Array:
    model: Any = nnx.merge(graph, state)
    return model(as_parameters(model, context), horizon).astype(jnp.float32)
