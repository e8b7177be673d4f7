"""Classification: one label an image or a clip."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def to_float(pixels: jax.Array) -> jax.Array:
    """uint8 pixels to float32 in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy with optional label smoothing; the figure is top-1 accuracy.

    A batch is `{"image" or "video": uint8 [B, ...], "label": int [B]}`.
    """

    label_smoothing: float = 0.0

    @staticmethod
    def _logits(model: Any, batch: Mapping[str, Any]) -> jax.Array:
        pixels = batch["video"] if "video" in batch else batch["image"]
        return model(to_float(pixels)).astype(jnp.float32)

    def prepared(self, source: Any) -> Any:
        return source

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        nnx.reseed(model, dropout=key)
        logits = self._logits(model, batch)
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), self.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, {"top1": (logits.argmax(-1) == batch["label"]).mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, jax.Array]:
        del key  # a classifier in evaluation mode is deterministic
        logits = self._logits(model, batch)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return {"loss": loss, "top1": (logits.argmax(-1) == batch["label"]).astype(jnp.float32)}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []
