"""Tagging: any number of labels a video, from features of its frames."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.metrics.tagging import global_average_precision
from zoo.precision import as_parameters

_TOP = 20  # answers a video that YouTube-8M's figures look at


@dataclasses.dataclass(frozen=True)
class Tagging:
    """Binary cross-entropy of every label, summed; the figures are those of YouTube-8M.

    Of each video hit@1 and the precision at as many labels as it has, of all together the global average precision.

    A batch is `{"features": float [B, T, F], "frames": int [B], "classes": 0 or 1 [B, labels]}`.
    """

    needs: ClassVar[tuple[str, ...]] = ("features", "frames", "classes")

    def prepared(self, train: Any, held_out: Any) -> tuple["Tagging", Any, Any]:
        return self, train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        del key  # dropout is the only chance, and the model's own
        logits = model(as_parameters(model, batch["features"]), batch["frames"]).astype(jnp.float32)
        loss = optax.sigmoid_binary_cross_entropy(logits, batch["classes"]).sum(-1).mean()
        return loss, {"hit1": _hit(logits, batch["classes"]).mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        del key  # a tagger in evaluation mode is deterministic
        logits = model(as_parameters(model, batch["features"]), batch["frames"]).astype(jnp.float32)
        classes = jnp.asarray(batch["classes"])
        loss = optax.sigmoid_binary_cross_entropy(logits, classes).sum(-1)
        # Of the n likeliest, n being how many labels a video has, how many are right (YouTube-8M's PERR).
        order = jnp.argsort(-logits, axis=-1)[:, :_TOP]
        count = classes.sum(-1)
        among = jnp.arange(order.shape[-1]) < count[:, None]
        right = (jnp.take_along_axis(classes, order, axis=-1) * among).sum(-1)
        precision = right / jnp.maximum(1, jnp.minimum(count, _TOP))
        best = {
            "probabilities": jax.nn.sigmoid(jnp.take_along_axis(logits, order, axis=-1)),
            "right": jnp.take_along_axis(classes, order, axis=-1),
            "wanted": count,
        }
        return {"loss": loss, "hit1": _hit(logits, classes), "precision": (precision, count > 0), "answers": best}

    def over_all(self, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"gap": global_average_precision(**answers)}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []


def _hit(logits: jax.Array, classes: Any) -> jax.Array:
    """1.0 where the likeliest label is right."""
    return jnp.take_along_axis(jnp.asarray(classes), logits.argmax(-1)[:, None], axis=-1)[:, 0]
