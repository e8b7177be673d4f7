"""Generation by flow matching (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003).

Noise e and data x are joined by the straight line z_t = (1 - t) e + t x, t from 0 to 1, whose velocity is x - e. The
network predicts the clean clip x rather than the velocity: x lies on the low-dimensional set of real clips, so a small
network learns it soon, whereas the velocity carries all of the noise (Li and He 2025, arXiv:2511.13720). The velocity
that the sampler follows is (x - z_t) / (1 - t).
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from zoo.data import encode
from zoo.tasks.classification import to_float

Denoiser = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Clean clip from (noisy clip `[B, ...]`, time `[B]`, classes `[B, num_classes]`)."""


def _broadcast(time: jax.Array, x: jax.Array) -> jax.Array:
    return time.reshape(-1, *(1,) * (x.ndim - 1))


def flow_matching_error(
    denoise: Denoiser,
    x: Float[jax.Array, "batch *clip"],
    classes: Float[jax.Array, "batch classes"],
    noise: Float[jax.Array, "batch *clip"],
    time: Float[jax.Array, "batch"],
    weight_limit: float,
) -> Float[jax.Array, "batch"]:
    """Squared error of the predicted clean clip, mean over a clip and weighted by its time: `[B]`.

    The velocity's error is the clip's divided by 1 - t. Its square would drown coarse structure in the last, almost
    noiseless steps; one power, bounded by 1 / weight_limit, keeps both.
    """
    t = _broadcast(time, x)
    error = jnp.square(denoise((1 - t) * noise + t * x, time, classes) - x).mean(range(1, x.ndim))
    return error / jnp.maximum(1 - time, weight_limit)


def guided(denoise: Denoiser, guidance: float) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598); all-zero classes are the "any" condition.

    Both predictions run in one batch. guidance 1 is the plain conditional model.
    """

    def denoise_guided(z: jax.Array, time: jax.Array, classes: jax.Array) -> jax.Array:
        both = denoise(
            jnp.concatenate([z, z]), jnp.concatenate([time, time]), jnp.concatenate([classes, jnp.zeros_like(classes)])
        )
        conditional, free = jnp.split(both, 2)
        return free + guidance * (conditional - free)

    return denoise_guided


def sample(
    denoise: Denoiser,
    noise: Float[jax.Array, "batch *clip"],
    classes: Float[jax.Array, "batch classes"],
    num_steps: int,
) -> Float[jax.Array, "batch *clip"]:
    """Follows the flow from noise at t = 0 to data at t = 1: Heun's method, the last step Euler.

    All steps run in one device loop. Heun's corrector would divide by 1 - t = 0 at the end, where Euler's step is the
    predicted clean clip itself.
    """
    times = jnp.linspace(0, 1, num_steps + 1)

    def velocity(z, t):
        return (denoise(z, jnp.full(len(z), t), classes) - z) / (1 - t)

    def heun(i, z):
        step = times[i + 1] - times[i]
        first = velocity(z, times[i])
        second = velocity(z + step * first, times[i + 1])
        return z + step * (first + second) / 2

    z = jax.lax.fori_loop(0, num_steps - 1, heun, noise)
    return denoise(z, jnp.full(len(z), times[-2]), classes)


@dataclasses.dataclass(frozen=True)
class FlowMatching:
    """Trains a denoiser `model(z, time, classes)` on batches `{"video": uint8 [B,T,H,W,C], "classes": float [B, N]}`.

    Args:
      clip_shape: `[T, H, W, C]` of a clip.
      drop_classes: share of clips trained without their classes, for classifier-free guidance.
      time_mean: times are drawn as sigmoid(normal(time_mean, 1)) (Esser et al. 2024, arXiv:2403.03206); below zero
        leans towards noise: many alike pixels, taken together, tell what a clip shows long before one of them does.
      weight_limit: see `flow_matching_error`.
      guidance, num_steps: of the sampler.
      shown: class counts of the clips that `show` draws, one list of classes a clip.
    """

    clip_shape: tuple[int, int, int, int]
    num_classes: int = 10
    drop_classes: float = 0.1
    time_mean: float = -1.4
    weight_limit: float = 0.1
    guidance: float = 2.5
    num_steps: int = 12
    shown: tuple[tuple[int, ...], ...] = (*((digit,) for digit in range(10)), (0, 1), (2, 3), (4, 5), (6, 7), (8, 9))

    def prepared(self, train: Any, held_out: Any) -> tuple["FlowMatching", Any, Any]:
        return self, train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        for_noise, for_time, for_drop = jax.random.split(key, 3)
        x = to_float(batch["video"])
        noise = jax.random.normal(for_noise, x.shape)
        time = jax.nn.sigmoid(self.time_mean + jax.random.normal(for_time, x.shape[:1]))
        kept = jax.random.bernoulli(for_drop, 1 - self.drop_classes, x.shape[:1])
        classes = batch["classes"] * kept[:, None]
        return flow_matching_error(self._denoiser(model), x, classes, noise, time, self.weight_limit).mean(), {}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        """The training loss with all classes given, at times spread evenly over the distribution's quantiles."""
        x = to_float(batch["video"])
        noise = jax.random.normal(key, x.shape)
        quantiles = (jnp.arange(len(x)) + 0.5) / len(x)
        time = jax.nn.sigmoid(self.time_mean + jax.scipy.stats.norm.ppf(quantiles))
        return {"loss": flow_matching_error(self._denoiser(model), x, batch["classes"], noise, time, self.weight_limit)}

    def generate(self, model: Any, classes: jax.Array, key: jax.Array) -> jax.Array:
        """Clips uint8 `[B, T, H, W, C]` that show the given class counts `[B, num_classes]`."""
        noise = jax.random.normal(key, (len(classes), *self.clip_shape))
        x = sample(guided(self._denoiser(model), self.guidance), noise, classes, self.num_steps)
        return jnp.round((jnp.clip(x, -1, 1) + 1) * 127.5).astype(jnp.uint8)

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        """Writes samples-<step>.png (one row a clip), .gif and .mp4 (all clips moving side by side)."""
        classes = np.stack([np.bincount(clip, minlength=self.num_classes) for clip in self.shown]).astype(np.float32)
        clips = np.asarray(_generate(self, *nnx.split(model), classes, key))
        stem = folder / f"samples-{step:06d}"
        grid = encode.grid(clips, columns=5)
        return [
            encode.write_picture(stem.with_suffix(".png"), encode.strips(clips, columns=3)),
            encode.write_video(stem.with_suffix(".gif"), grid, frame_rate=8),
            encode.write_video(stem.with_suffix(".mp4"), grid, frame_rate=8),
        ]

    @staticmethod
    def _denoiser(model: Any) -> Denoiser:
        # The network may compute in bfloat16; noise, sums and losses stay float32.
        return lambda z, time, classes: model(z, time, classes).astype(jnp.float32)


@jax.jit(static_argnums=(0, 1))
def _generate(task: FlowMatching, graph: nnx.GraphDef, state: nnx.State, classes: jax.Array, key: jax.Array):
    return task.generate(nnx.merge(graph, state), classes, key)
