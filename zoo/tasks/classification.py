"""Classification: one label an image or a clip, and remedies where labels are few or unevenly spread."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo.precision import as_parameters


def to_float(pixels: Any, mean: float | tuple[float, ...] = 127.5, std: float | tuple[float, ...] = 127.5) -> jax.Array:
    """uint8 pixels to float32, by default in [-1, 1]; mean and std are one number or one a channel."""
    return (pixels.astype(jnp.float32) - jnp.asarray(mean)) / jnp.asarray(std)


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy; the figures are top-1 accuracy, and those of frequent, middling and rare classes.

    A batch is `{"image" or "video": uint8 [B, ...], "label": int [B]}`.

    Args:
      label_smoothing: share of the target that is spread over all classes.
      mean, std: of pixels, as in a card.
      mixup: examples are blended with others by a share from Beta(mixup, mixup) (Zhang et al. 2018, arXiv:1710.09412).
      cutmix: a box of each example, as large as a share from Beta(cutmix, cutmix) says, is another's (Yun et al. 2019,
        arXiv:1905.04899). With mixup as well, each batch takes one of the two.
      focal: the exponent that makes examples count less, the surer they are (Lin et al. 2017, arXiv:1708.02002).
      class_balanced: beta; a class of n examples counts (1 - beta) / (1 - beta ** n) (Cui et al. 2019,
        arXiv:1901.05555), on average 1.
      logit_adjustment: in training logits are raised by so many times the logarithm of their class's share (Menon et
        al. 2021, arXiv:2007.07314).
      counts: training examples of each class; `prepared` looks them up.
    """

    needs: ClassVar[tuple[str, ...]] = ("label",)

    label_smoothing: float = 0.0
    mean: float | tuple[float, ...] = 127.5
    std: float | tuple[float, ...] = 127.5
    mixup: float = 0.0
    cutmix: float = 0.0
    focal: float = 0.0
    class_balanced: float = 0.0
    logit_adjustment: float = 0.0
    counts: tuple[int, ...] = ()

    @property
    def mixes_examples(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def prepared(self, train: Any, held_out: Any) -> tuple["Classification", Any, Any]:
        counts = tuple(int(count) for count in getattr(train, "counts", ()))
        return dataclasses.replace(self, counts=counts), train, held_out

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array):
        x, labels = self._pixels(batch), batch["label"]
        targets = jax.nn.one_hot(labels, self._num_classes(model, x))
        x, targets = self._mixed(x, targets, key)
        logits = model(as_parameters(model, x)).astype(jnp.float32)
        top1 = (logits.argmax(-1) == labels).mean()
        targets = optax.smooth_labels(targets, self.label_smoothing)
        if self.logit_adjustment:
            shares = np.array(self.counts) / sum(self.counts)
            logits = logits + self.logit_adjustment * jnp.log(jnp.maximum(jnp.asarray(shares), 1e-12))
        log_shares = jax.nn.log_softmax(logits)
        unsure = (1 - jnp.exp(log_shares)) ** self.focal if self.focal else 1.0
        losses = -(targets * unsure * log_shares).sum(-1)
        if self.class_balanced:
            losses = losses * (targets * self._class_weights()).sum(-1)
        return losses.mean(), {"top1": top1}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        del key  # a classifier in evaluation mode is deterministic
        logits, labels = model(as_parameters(model, self._pixels(batch))).astype(jnp.float32), batch["label"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = (logits.argmax(-1) == labels).astype(jnp.float32)
        figures: dict[str, Any] = {"loss": loss, "top1": right}
        if len(set(self.counts)) > 1:
            order = np.argsort(-np.array(self.counts), kind="stable")
            for name, third in zip(("head", "middle", "tail"), np.array_split(order, 3), strict=True):
                figures[f"top1_{name}"] = right, jnp.isin(labels, jnp.asarray(third))
        return figures

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []

    def _pixels(self, batch: Mapping[str, Any]) -> jax.Array:
        return to_float(batch["video"] if "video" in batch else batch["image"], self.mean, self.std)

    @staticmethod
    def _num_classes(model: Any, x: jax.Array) -> int:
        return nnx.eval_shape(lambda model, x: model(x), model, x).shape[-1]

    def _class_weights(self) -> jax.Array:
        counts = np.maximum(1, np.array(self.counts))
        weights = (1 - self.class_balanced) / (1 - self.class_balanced**counts)
        return jnp.asarray(weights / weights.mean(), jnp.float32)

    def _mixed(self, x: jax.Array, targets: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Examples blended with, or cut into, those of the batch in another order."""
        if not (self.mixup or self.cutmix):
            return x, targets
        for_order, for_share, for_place, for_kind = jax.random.split(key, 4)
        order = jax.random.permutation(for_order, len(x))
        chance = 0.5 if self.mixup and self.cutmix else float(bool(self.cutmix))
        cuts = jax.random.bernoulli(for_kind, chance)
        strength = jnp.where(cuts, self.cutmix, self.mixup)
        kept = jax.random.beta(for_share, strength, strength)
        height, width = x.shape[-3:-1]
        y, x_ = jax.random.uniform(for_place, (2,))
        rows, columns = jnp.arange(height), jnp.arange(width)
        side = jnp.sqrt(1 - kept)
        inside_rows = jnp.abs(rows + 0.5 - y * height) < side * height / 2
        inside_columns = jnp.abs(columns + 0.5 - x_ * width) < side * width / 2
        box = (inside_rows[:, None] & inside_columns)[..., None]
        # A box that reaches over the border is smaller than was drawn: its share is what is left of it.
        kept = jnp.where(cuts, 1 - box.mean(), kept)
        mixed = jnp.where(cuts, jnp.where(box, x[order], x), kept * x + (1 - kept) * x[order])
        return mixed, kept * targets + (1 - kept) * targets[order]
