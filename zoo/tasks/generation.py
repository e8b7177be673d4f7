"""Generation by flow matching (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003).

Noise e and data x are joined by the straight line z_t = (1 - t) e + t x, t from 0 to 1, whose velocity is x - e. The
network predicts the clean clip x rather than the velocity: x lies on the low-dimensional set of real clips, so a small
network learns it soon, whereas the velocity carries all of the noise (Li and He 2025, arXiv:2511.13720). The velocity
that the sampler follows is (x - z_t) / (1 - t).
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from zoo.data import encode
from zoo.errors import UserError
from zoo.precision import as_parameters
from zoo.tasks.classification import to_float

Denoiser = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Clean clip from (noisy clip `[B, ...]`, time `[B]`, classes `[B, num_classes]`)."""

SAMPLERS = ("euler", "heun")


def _broadcast(time: jax.Array, x: jax.Array) -> jax.Array:
    return time.reshape(*time.shape, *(1,) * (x.ndim - time.ndim))


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

    Both predictions run in one batch. guidance 1 is the plain conditional model, at half the cost.
    """

    def denoise_guided(z: jax.Array, time: jax.Array, classes: jax.Array) -> jax.Array:
        both = denoise(
            jnp.concatenate([z, z]), jnp.concatenate([time, time]), jnp.concatenate([classes, jnp.zeros_like(classes)])
        )
        conditional, free = jnp.split(both, 2)
        return free + guidance * (conditional - free)

    return denoise if guidance == 1 else denoise_guided


def knowing(model: Any, frames: Float[Any, "batch time height width channels"], known: Any) -> Denoiser:
    """The denoiser of clips of which some frames are known: these it is given, and gives back, as they are.

    Args:
      model: called with (clip, time, classes, known `[B, T]`).
      frames: clips whose unknown frames may hold anything.
      known: `[B, T]`, 1 for a known frame and 0 for another.
    """

    def denoise(z: jax.Array, time: jax.Array, classes: jax.Array) -> jax.Array:
        # Guidance asks for each clip twice.
        times = len(z) // len(frames)
        told, is_known = jnp.tile(frames, (times, 1, 1, 1, 1)), jnp.tile(known, (times, 1))
        mask = _broadcast(is_known, z) > 0
        # The network may compute in bfloat16; noise, sums and losses stay float32.
        seen = as_parameters(model, jnp.where(mask, told, z))
        clean = model(seen, time, classes, is_known).astype(jnp.float32)
        return jnp.where(mask, told, clean)

    return denoise


def sampling_times(num_steps: int, time_mean: float) -> Float[jax.Array, "times"]:
    """The times from 0 to 1 between which a sampler steps, dense where training has most of its times.

    Even steps whose log odds are shifted by `time_mean` (Esser et al. 2024, arXiv:2403.03206, section 5.3.2).
    """
    even, odds = jnp.linspace(0, 1, num_steps + 1), jnp.exp(time_mean)
    return even * odds / (1 - even + even * odds)


def sample(
    denoise: Denoiser,
    noise: Float[jax.Array, "batch *clip"],
    classes: Float[jax.Array, "batch classes"],
    times: Float[jax.Array, "times"],
    sampler: str,
) -> Float[jax.Array, "batch *clip"]:
    """Follows the flow from noise at t = 0 to data at t = 1, with a step between each two of the times.

    Euler's method asks the denoiser once a step, Heun's twice but for the last step, which is Euler's: the corrector
    would divide by 1 - t = 0, where Euler's step is the predicted clean clip itself. All steps run in one device loop.
    """

    def velocity(z, t):
        return (denoise(z, jnp.full(len(z), t), classes) - z) / (1 - t)

    def advance(i, z):
        step = times[i + 1] - times[i]
        first = velocity(z, times[i])
        if sampler == "euler":
            return z + step * first
        second = velocity(z + step * first, times[i + 1])
        return z + step * (first + second) / 2

    z = jax.lax.fori_loop(0, len(times) - 2, advance, noise)
    return denoise(z, jnp.full(len(z), times[-2]), classes)


@dataclasses.dataclass(frozen=True)
class FlowMatching:
    """Trains a `model(z, time, classes, known)` on batches `{"video": uint8 [B,T,H,W,C], "classes": float [B, N]}`.

    Clips of one class each may have "label", an index `[B]`, in place of "classes". A model that has `encode` and
    `decode` works on latents, as `zoo.models.latent_video_gen` says.

    Args:
      clip_shape: `[T, H, W, C]` of a clip.
      drop_classes: share of clips trained without their classes, for classifier-free guidance.
      know_frames: share of clips trained with their first frames known, from 1 to half of them alike often; they tell
        how a picture or a clip goes on. Half of these go without their classes, so that the frames have to tell all.
      time_mean: times are drawn as sigmoid(normal(time_mean, 1)) (Esser et al. 2024, arXiv:2403.03206); below zero
        leans towards noise: many alike pixels, taken together, tell what a clip shows long before one of them does.
      weight_limit: see `flow_matching_error`.
      guidance, num_steps, sampler: see `guided`, `sample`; a sampler is one of `SAMPLERS`.
      shown: class counts of the clips that `show` draws, one list of classes a clip.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)

    clip_shape: tuple[int, int, int, int]
    num_classes: int = 10
    drop_classes: float = 0.1
    know_frames: float = 0.0
    time_mean: float = -1.4
    weight_limit: float = 0.1
    guidance: float = 2.5
    num_steps: int = 12
    sampler: str = "heun"
    shown: tuple[tuple[int, ...], ...] = (*((digit,) for digit in range(10)), (0, 1), (2, 3), (4, 5), (6, 7), (8, 9))

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UserError(f"{self.num_steps} steps make no clip; give 1 or more")
        if not 1 <= self.guidance < float("inf"):
            raise UserError(f"guidance is {self.guidance}; it must be 1, which is none, or more")
        if self.sampler not in SAMPLERS:
            raise UserError(f"no sampler is called {self.sampler!r}; there are {', '.join(SAMPLERS)}")

    def prepared(self, train: Any, held_out: Any) -> tuple["FlowMatching", Any, Any]:
        """For the data's own clips and classes, of which those are shown that there are."""
        item = held_out[0]
        if not {"classes", "label"} & set(item):
            raise UserError(f"clips with {', '.join(item)}, and no classes or label, cannot be learnt; take other data")
        count = train.num_classes
        shown = tuple(clip for clip in self.shown if max(clip) < count)
        return (
            dataclasses.replace(self, clip_shape=item["video"].shape, num_classes=count, shown=shown),
            train,
            held_out,
        )

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        for_noise, for_time, for_drop, for_known = jax.random.split(key, 4)
        x = _data(model, to_float(batch["video"]))
        noise = jax.random.normal(for_noise, x.shape)
        time = jax.nn.sigmoid(self.time_mean + jax.random.normal(for_time, x.shape[:1]))
        known = self._known(len(x), x.shape[1], for_known)
        drop = jnp.where(known[:, 0] > 0, 0.5, self.drop_classes)
        kept = jax.random.bernoulli(for_drop, 1 - drop, x.shape[:1])
        classes = self._classes(batch) * kept[:, None]
        error = flow_matching_error(knowing(model, x, known), x, classes, noise, time, self.weight_limit)
        # What is known has no error: the mean is to be that of the other frames.
        return (error / (1 - known.mean(axis=1))).mean(), {}

    def _classes(self, batch: Mapping[str, Any]) -> jax.Array:
        if "classes" in batch:
            return jnp.asarray(batch["classes"])
        return jax.nn.one_hot(batch["label"], self.num_classes)

    def _known(self, count: int, frames: int, key: jax.Array) -> Float[jax.Array, "batch time"]:
        for_share, for_frames = jax.random.split(key)
        some = jax.random.bernoulli(for_share, self.know_frames, (count,))
        first = some * jax.random.randint(for_frames, (count,), 1, max(frames // 2, 1) + 1)
        return (jnp.arange(frames) < first[:, None]).astype(jnp.float32)

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        """The training loss with all classes given, at times spread evenly over the distribution's quantiles."""
        x = _data(model, to_float(batch["video"]))
        noise = jax.random.normal(key, x.shape)
        quantiles = (jnp.arange(len(x)) + 0.5) / len(x)
        time = jax.nn.sigmoid(self.time_mean + jax.scipy.stats.norm.ppf(quantiles))
        denoise = knowing(model, x, jnp.zeros(x.shape[:2]))
        return {"loss": flow_matching_error(denoise, x, self._classes(batch), noise, time, self.weight_limit)}

    def generate(self, model: Any, classes: jax.Array, keys: jax.Array, frames: jax.Array, known: jax.Array):
        """Clips float32 `[B, T, H, W, C]` in about [-1, 1].

        Args:
          classes: counts `[B, num_classes]` of what they show, all zero for "any".
          keys: `[B]`, one a clip, so that a clip does not depend on those beside it.
          frames, known: see `knowing`. Of latents those are known that tell of known frames alone.
        """
        pixels, frames = frames, _data(model, frames)
        known = known.reshape(len(known), frames.shape[1], -1).min(axis=2)
        noise = jax.vmap(lambda key: jax.random.normal(key, frames.shape[1:]))(keys)
        times = sampling_times(self.num_steps, self.time_mean)
        x = sample(guided(knowing(model, frames, known), self.guidance), noise, classes, times, self.sampler)
        return x if pixels is frames else model.decode(as_parameters(model, x)).astype(jnp.float32)

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        """Writes samples-<step>.png (one row a clip), .gif and .mp4 (all clips moving side by side)."""
        classes = np.stack([np.bincount(clip, minlength=self.num_classes) for clip in self.shown]).astype(np.float32)
        keys = jax.random.split(key, len(classes))
        frames = np.zeros((len(classes), *self.clip_shape), np.float32)
        clips = to_pixels(generated(self, model, classes, keys, frames, np.zeros(frames.shape[:2], np.float32)))
        stem = folder / f"samples-{step:06d}"
        grid = encode.grid(clips, columns=5)
        return [
            encode.write_picture(stem.with_suffix(".png"), encode.strips(clips, columns=3)),
            encode.write_video(stem.with_suffix(".gif"), grid, frame_rate=8),
            encode.write_video(stem.with_suffix(".mp4"), grid, frame_rate=8),
        ]


def _data(model: Any, clips: jax.Array) -> jax.Array:
    """What the network denoises of clips: their latents if it has any."""
    if not hasattr(model, "encode"):
        return clips
    return model.encode(as_parameters(model, clips)).astype(jnp.float32)


def to_pixels(clips: Any) -> np.ndarray:
    """The inverse of `to_float`: float in [-1, 1], and cut off there, to uint8."""
    return np.round((np.clip(np.asarray(clips, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def generated(task: FlowMatching, model: nnx.Module, classes: Any, keys: Any, frames: Any, known: Any) -> np.ndarray:
    """`FlowMatching.generate` in the parameters' precision, compiled once a task and shape: float32 [B, T, H, W, C]."""
    return np.asarray(_generated(task, *nnx.split(model), classes, keys, frames, known))


@jax.jit(static_argnums=(0, 1))
def _generated(task: FlowMatching, graph: nnx.GraphDef, state: nnx.State, classes, keys, frames, known) -> jax.Array:
    return task.generate(nnx.merge(graph, state), classes, keys, frames, known)
