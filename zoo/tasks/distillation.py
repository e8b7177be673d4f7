"""Distillation: a student learns from real clips without labels what a published teacher says of them."""

import dataclasses
import functools
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo import hub
from zoo.models.layers import avg_pool
from zoo.tasks.classification import to_float


@dataclasses.dataclass(frozen=True)
class _TaughtByI3D:
    """Trains a student to say of the clip so far what I3D says of all of it (Hinton et al. 2015, arXiv:1503.02531).

    A batch is what `TaughtClips` gives: `{"logits": [B, classes], "activations": [B, 4, 7, 7, 1024], ...}`.

    Args:
      teacher: the published I3D.
      early: weight of what is said before the last step.
      feature_weight: of the activations' squared error at all but the last step, in units of the teacher's variance.
    """

    teacher: str = "i3d_kinetics400"
    early: float = 0.5
    feature_weight: float = 1.0

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        nnx.reseed(model, dropout=key)
        found = self._follow(model, batch)
        targets = jax.nn.softmax(batch["logits"])
        by_step = _divergence(targets[:, None], found["logits"])
        weights = jnp.full(by_step.shape[1], self.early).at[-1].set(1.0)
        told = (by_step * weights).sum(1).mean() / weights.sum()
        uncorrected = _divergence(targets, found["uncorrected"][:, -1]).mean()
        # The teacher's last step is mostly what zeros behind the clip's end make of it: no student sees those.
        activations = batch["activations"][:, :-1].astype(jnp.float32)
        error = jnp.square(found["activations"][:, :-1] - activations).mean() / activations.var()
        figures = {"divergence": by_step[:, -1].mean(), "uncorrected": uncorrected, "feature_error": error}
        return told + uncorrected + self.feature_weight * error, figures

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        del key
        found, teacher = self._follow(model, batch), batch["logits"]
        figures = {"loss": _divergence(jax.nn.softmax(teacher), found["logits"][:, -1])}
        for name, logits in (("first", found["logits"][:, 0]), ("last", found["logits"][:, -1])):
            figures |= {f"top{k}_{name}": agreement(teacher, logits, k) for k in (1, 5)}
        return figures | {"top1_uncorrected": agreement(teacher, found["uncorrected"][:, -1], 1)}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []

    @staticmethod
    def _follow(model: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """`logits` and `uncorrected` `[B, steps, classes]` and `activations` `[B, 4, 7, 7, 1024]` of a student."""
        raise NotImplementedError


class WindowedI3D(_TaughtByI3D):
    """Trains the upper part of an `i3d_lstm`. The lower part stays I3D's, and what it makes of a clip is kept on disk.

    A batch has `"maps": [B, windows, 2, 7, 7, 832]`, the lower part's, as well.
    """

    def prepared(self, source: Any) -> Any:
        return TaughtClips(source, self.teacher, ("maps", "logits", "activations"))

    @staticmethod
    def _follow(model: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        model.eval()  # statistics stay the teacher's
        maps = jnp.asarray(batch["maps"], jnp.float32)
        state = model.initial_state(len(maps), jnp.float32)
        del state["lower"]
        found, _ = model.follow(maps, state)
        return found | {"activations": found["activations"][:, -1]}


class FramewiseI3D(_TaughtByI3D):
    """Trains an `inception_lstm` on two frames of the eight behind each of the teacher's last activations.

    A batch has `"video": uint8 [B, 8, H, W, 3]` as well.
    """

    def prepared(self, source: Any) -> Any:
        return TaughtClips(source, self.teacher, ("logits", "activations"), frames=(2, 5))

    @staticmethod
    def _follow(model: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        maps = model.frames.maps(to_float(batch["video"]))
        found, _ = model.follow(maps.mean(axis=(2, 3)))
        pairs = maps.reshape(len(maps), -1, 2, *maps.shape[2:])
        return found | {"activations": pairs.mean(axis=2)}


_FRAMES_A_STEP = 8  # of I3D's last blocks


def _divergence(targets: jax.Array, logits: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of the students' distribution from the teacher's, over the last axis."""
    return optax.losses.kl_divergence(jax.nn.log_softmax(logits), targets)


def agreement(teacher: jax.Array, student: jax.Array, k: int) -> jax.Array:
    """1.0 where the teacher's likeliest class is among the student's `k` likeliest, else 0.0: `[B]`."""
    best = jax.lax.top_k(student, k)[1]
    return (best == teacher.argmax(-1)[:, None]).any(-1).astype(jnp.float32)


class TaughtClips:
    """Random-access source of clips as the teacher and `i3d_lstm`'s lower part see them.

    Each item is computed when first asked for, and kept on disk.

    Args:
      source: of clips.
      teacher: the published I3D.
      arrays: which of `maps`, `logits` and `activations` an item has.
      frames: which of every eight frames an item has, as `video`.
    """

    def __init__(self, source: Any, teacher: str, arrays: tuple[str, ...], frames: tuple[int, ...] = ()):
        self.source, self.num_classes = source, source.num_classes
        self.arrays, self.frames = arrays, frames
        what = json.dumps([repr(source), teacher], sort_keys=True)
        self.folder = hub.cache_folder() / "taught" / hashlib.sha256(what.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._teacher = teacher

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        path = self.folder / f"{index:06d}.npz"
        is_kept = path.exists()
        video = None if is_kept and not self.frames else self.source[index]["video"]
        if not is_kept:
            assert video is not None
            found = self._look(to_float(video[None]))
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            with partial.open("wb") as file:
                arrays = {name: np.asarray(value[0]) for name, value in found.items()}
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            partial.replace(path)
        with np.load(path) as kept:
            item = {name: kept[name] for name in self.arrays}
        if self.frames:
            assert video is not None
            steps = video.reshape(-1, _FRAMES_A_STEP, *video.shape[1:])
            item["video"] = steps[:, list(self.frames)].reshape(-1, *video.shape[1:])
        return item

    @functools.cached_property
    def _look(self) -> Any:
        """The compiled teacher and lower part of the student, on `[1, T, H, W, 3]`."""
        from zoo import registry
        from zoo.predictor import load

        model: Any = registry.create("i3d_lstm")
        model.i3d = load(self._teacher).model
        model.eval()
        graph, weights = nnx.split(model)

        @jax.jit
        def look(weights: nnx.State, x: jax.Array) -> dict[str, jax.Array]:
            model: Any = nnx.merge(graph, weights)
            maps, _ = model.lower(x, model.initial_state(len(x), x.dtype, x.shape[2])["lower"])
            activations = model.i3d.mixed_5c(model.i3d.mixed_5b(model.i3d.lower(x)))
            window = [min(size, there) for size, there in zip((2, 7, 7), activations.shape[1:4], strict=True)]
            logits = model.i3d.classify(avg_pool(activations, window=window, strides=1)).mean(axis=(1, 2, 3))
            half = functools.partial(jnp.asarray, dtype=jnp.float16)
            return {"maps": half(maps), "logits": logits, "activations": half(activations)}

        return functools.partial(look, weights)
