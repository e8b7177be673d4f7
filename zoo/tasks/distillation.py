"""Distillation: a student learns from real clips without labels what a published teacher says of them."""

import dataclasses
import functools
import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo import hub
from zoo.models.layers import avg_pool
from zoo.precision import as_parameters
from zoo.tasks.classification import to_float


@dataclasses.dataclass(frozen=True)
class WindowedI3D:
    """Trains the LSTM of an `i3d_lstm` to say after each window what I3D says of the whole clip.

    I3D's features are computed once and kept: its part is to be frozen. The loss is the divergence from the teacher
    (Hinton et al. 2015, arXiv:1503.02531). A batch is `{"features": [B, windows, 2048], "logits": [B, classes]}`.

    Args:
      teacher: the published I3D.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)

    teacher: str = "i3d_kinetics400"

    def prepared(self, train: Any, held_out: Any) -> tuple["WindowedI3D", Any, Any]:
        arrays = ("features", "logits")
        return self, TaughtClips(train, self.teacher, arrays), TaughtClips(held_out, self.teacher, arrays)

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        del key  # dropout is the only chance, and the model's own
        found, _ = model.expect(as_parameters(model, batch["features"]))
        divergence, uncorrected = (_divergence(batch["logits"], found[name]) for name in ("logits", "uncorrected"))
        return divergence.mean(), {"first": divergence[:, 0].mean(), "first_uncorrected": uncorrected[:, 0].mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        del key
        found, _ = model.expect(as_parameters(model, batch["features"]))
        return _figures(found, batch["logits"])

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []


@dataclasses.dataclass(frozen=True)
class FramewiseI3D:
    """Trains an `inception_lstm` to say after each frame what I3D says of the whole clip, and to see what I3D sees.

    It sees two frames of the eight behind each of the teacher's last activations. A batch is `{"video": uint8
    [B, 8, H, W, 3], "logits": [B, classes], "activations": [B, 4, 7, 7, 1024]}`.

    Args:
      teacher: the published I3D.
      feature_weight: of the activations' squared error at all but the last step, in units of the teacher's variance.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)
    mixes_examples: ClassVar[bool] = True  # the teacher's variance is that of a batch

    teacher: str = "i3d_kinetics400"
    feature_weight: float = 1.0

    def prepared(self, train: Any, held_out: Any) -> tuple["FramewiseI3D", Any, Any]:
        arrays, frames = ("logits", "activations"), (2, 5)
        taught = (TaughtClips(source, self.teacher, arrays, frames) for source in (train, held_out))
        return self, next(taught), next(taught)

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        del key  # dropout is the only chance, and the model's own
        maps = model.frames.maps(as_parameters(model, to_float(batch["video"])))
        found, _ = model.follow(maps.mean(axis=(2, 3)))
        told = _divergence(batch["logits"], found["logits"]).mean()
        uncorrected = _divergence(batch["logits"], found["uncorrected"])[:, -1].mean()
        seen = maps.reshape(len(maps), -1, 2, *maps.shape[2:]).mean(axis=2)
        # The teacher's last step is mostly what zeros behind the clip's end make of it: no frame shows those.
        activations = batch["activations"][:, :-1].astype(jnp.float32)
        error = jnp.square(seen[:, :-1] - activations).mean() / activations.var()
        figures = {"divergence": told, "uncorrected": uncorrected, "feature_error": error}
        return told + uncorrected + self.feature_weight * error, figures

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        del key
        seen = as_parameters(model, to_float(batch["video"]))
        found, _ = model.follow(model.frames.frame_features(seen))
        return _figures(found, batch["logits"])

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []


def _divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """Kullback-Leibler, of a student's logits `[B, steps, classes]` from a teacher's `[B, classes]`: `[B, steps]`."""
    return optax.losses.kl_divergence(jax.nn.log_softmax(student), jax.nn.softmax(teacher)[:, None])


def _figures(found: Mapping[str, jax.Array], teacher: jax.Array) -> dict[str, jax.Array]:
    """Of each clip: divergence and agreement after the first step and after the last, with the LSTM and without."""
    figures = {"loss": _divergence(teacher, found["logits"]).mean(1)}
    for name, suffix in (("logits", ""), ("uncorrected", "_uncorrected")):
        for when, step in (("first", 0), ("last", -1)):
            logits = found[name][:, step]
            figures |= {f"top{k}_{when}{suffix}": agreement(teacher, logits, k) for k in (1, 5)}
    return figures


def agreement(teacher: jax.Array, student: jax.Array, k: int) -> jax.Array:
    """1.0 where the teacher's likeliest class is among the student's `k` likeliest, else 0.0: `[B]`."""
    best = jax.lax.top_k(student, k)[1]
    return (best == teacher.argmax(-1)[:, None]).any(-1).astype(jnp.float32)


_FRAMES_A_STEP = 8  # of I3D's last blocks


class TaughtClips:
    """Random-access source of clips as the teacher and, window by window, `i3d_lstm` see them.

    Each item is computed when first asked for, and kept on disk.

    Args:
      source: of clips, each with an `identity(index)`.
      teacher: the published I3D.
      arrays: which of `features`, `logits` and `activations` an item has.
      frames: which of every eight frames an item has, as `video`.
    """

    def __init__(self, source: Any, teacher: str, arrays: tuple[str, ...], frames: tuple[int, ...] = ()):
        self.source, self.num_classes = source, source.num_classes
        self.arrays, self.frames = arrays, frames
        self.folder = hub.cache_folder() / "taught" / teacher
        self.folder.mkdir(parents=True, exist_ok=True)
        self._teacher = teacher

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        identity = hashlib.sha256(self.source.identity(index).encode()).hexdigest()
        path = self.folder / f"{identity[:24]}.npz"
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
        """The compiled teacher, and its layers on windows, on `[1, T, H, W, 3]`."""
        from zoo import registry
        from zoo.predictor import load

        model: Any = registry.create("i3d_lstm", hidden_features=0)
        model.i3d = load(self._teacher).model
        model.eval()
        graph, weights = nnx.split(model)

        @jax.jit
        def look(weights: nnx.State, x: jax.Array) -> dict[str, jax.Array]:
            model: Any = nnx.merge(graph, weights)
            features, _ = model.see(x, model.initial_state(len(x), x.dtype, x.shape[2]))
            activations = model.i3d.mixed_5c(model.i3d.mixed_5b(model.i3d.lower(x)))
            window = [min(size, there) for size, there in zip((2, 7, 7), activations.shape[1:4], strict=True)]
            logits = model.i3d.classify(avg_pool(activations, window=window, strides=1)).mean(axis=(1, 2, 3))
            return {"features": features, "logits": logits, "activations": activations.astype(jnp.float16)}

        return functools.partial(look, weights)
