"""Embedding: vectors by which altered copies of a clip are found among other clips."""

import dataclasses
import functools
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Float, Num

from zoo import hub
from zoo.errors import UserError
from zoo.metrics.retrieval import mean_average_precision
from zoo.precision import as_parameters
from zoo.tasks.classification import to_float
from zoo.tasks.copies import altered

_NEVER = -1e9  # a logit; infinity would make what is left out no number, and no number times nothing is none


@dataclasses.dataclass(frozen=True)
class Embedding:
    """InfoNCE between two copies of each clip of a batch, both ways (SimCLR: Chen et al. 2020, arXiv:2002.05709).

    What learns is what a network's `features` give, by which `zoo search` compares clips. Copies are made as in
    `zoo.tasks.copies`. A batch is `{"video": uint8 [B, T, H, W, 3]}`, or with a `backbone` `{"copies": float32
    [B, copies, F]}`, of which the first is the clip as it is. The figures are whether a copy's partner is the nearest
    of the batch, and over all held-out clips the mean average precision with which copies find the clip that they are
    of; with a `backbone` by its own features as well.

    Args:
      temperature: of the softmax over cosines.
      mean, std: of pixels, as in a card.
      backbone: a published classifier that is part of an `embedder` and frozen: its features of so many `copies` of
        each clip are computed once and kept. Without one the whole network sees new copies in each step.
      copies: see `backbone`.
    """

    needs: ClassVar[tuple[str, ...]] = ("video",)
    mixes_examples: ClassVar[bool] = True  # the clips of a batch are what each copy is told from

    temperature: float = 0.1
    mean: float | tuple[float, ...] = 127.5
    std: float | tuple[float, ...] = 127.5
    backbone: str = ""
    copies: int = 4

    def prepared(self, train: Any, held_out: Any) -> tuple["Embedding", Any, Any]:
        if not self.backbone:
            return self, train, held_out
        seen = [SeenCopies(source, self.backbone, self.copies) for source in (train, held_out)]
        return self, seen[0], seen[1]

    def loss(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        if "copies" in batch:
            seen = jnp.asarray(batch["copies"])
            # Two that differ, of each clip.
            chosen = jax.random.uniform(key, seen.shape[:2]).argsort(axis=1)[:, :2, None]
            vectors = model.project(as_parameters(model, jnp.take_along_axis(seen, chosen, axis=1)))
        else:
            keys = jax.random.split(key, (len(batch["video"]), 2))
            copies = jax.vmap(jax.vmap(altered, (None, 0)))(jnp.asarray(batch["video"]), keys)
            vectors = self._features(model, copies)
        losses, nearest = info_nce(vectors[:, 0], vectors[:, 1], self.temperature)
        return losses.mean(), {"top1": nearest.mean()}

    def evaluate(self, model: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        if "copies" in batch:
            answers = {"backbone": jnp.asarray(batch["copies"]), "vectors": model.project(jnp.asarray(batch["copies"]))}
        else:
            video = jnp.asarray(batch["video"])
            copies = jax.vmap(altered)(video, jax.random.split(key, len(video)))
            answers = {"vectors": self._features(model, jnp.stack([video.astype(jnp.float32), copies], axis=1))}
        vectors = answers["vectors"]
        losses, nearest = info_nce(vectors[:, 0], vectors[:, 1], self.temperature, batch["weight"])
        return {"loss": losses, "top1": nearest, "answers": answers}

    def over_all(self, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        """How well each clip, the first of a row, is found by its copies, the others of the row."""
        named = {"mAP": "vectors", "mAP_backbone": "backbone"}
        return {name: mean_average_precision(answers[of]) for name, of in named.items() if of in answers}

    def show(self, model: Any, folder: Path, step: int, key: jax.Array) -> list[Path]:
        return []

    def _features(self, model: Any, copies: Float[jax.Array, "batch copies time height width 3"]) -> jax.Array:
        """`[B, copies, F]`: all of a batch in one pass, as batch statistics want it."""
        if not hasattr(model, "features"):
            raise UserError(f"{type(model).__name__} gives no features to be an embedding; take another --model")
        pixels = to_float(copies.reshape(-1, *copies.shape[2:]), self.mean, self.std)
        features = model.features(as_parameters(model, pixels)).astype(jnp.float32)
        return features.reshape(*copies.shape[:2], -1)


def info_nce(
    first: Float[jax.Array, "batch features"],
    second: Float[jax.Array, "batch features"],
    temperature: float,
    weight: Num[jax.Array, " batch"] | None = None,
) -> tuple[Float[jax.Array, " batch"], Float[jax.Array, " batch"]]:
    """SimCLR's loss of each pair, NT-Xent, and the share of its two vectors that are nearest to each other.

    Each vector is to be told from all others of both halves as its partner, by cosines.

    Args:
      weight: 0 for pairs that only fill up the batch, and that none is told from.

    Raises:
      UserError: there is one pair, and so nothing to tell it from.
    """
    if len(first) < 2:
        raise UserError("an embedding tells the clips of a batch apart; take a --batch-size of 2 or more a part")
    vectors = jnp.concatenate([first, second]).astype(jnp.float32)
    vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    likeness = vectors @ vectors.T / temperature
    counts = jnp.ones(len(first)) if weight is None else jnp.asarray(weight)
    others = ~jnp.eye(len(vectors), dtype=bool) & (jnp.tile(counts, 2) > 0)
    likeness = jnp.where(others, likeness, _NEVER)
    partners = jnp.roll(jnp.arange(len(vectors)), len(first))
    losses = optax.softmax_cross_entropy_with_integer_labels(likeness, partners)
    nearest = (likeness.argmax(-1) == partners).astype(jnp.float32)
    return losses.reshape(2, -1).mean(0), nearest.reshape(2, -1).mean(0)


class SeenCopies:
    """Random-access source of `{"copies": float32 [copies, F]}`: what a published model sees of a clip and its copies.

    Each item is computed when first asked for, and kept on disk by the clip's pixels.

    Args:
      source: of clips, of which its items are as they are.
      backbone: a published classifier that gives features.
      copies: of each clip, the first of them the clip as it is.
    """

    def __init__(self, source: Any, backbone: str, copies: int):
        self.source, self.num_classes, self.copies = source, source.num_classes, copies
        if hasattr(source, "unreadable"):
            self.unreadable = source.unreadable
        self.backbone = backbone
        self.folder = hub.cache_folder() / "copies" / backbone
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seen: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index not in self._seen:
            self._seen[index] = self._kept(np.ascontiguousarray(self.source[index]["video"]))
        return {"copies": self._seen[index]}

    def _kept(self, video: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(json.dumps([video.shape, self.copies]).encode() + video.tobytes()).digest()
        path = self.folder / f"{digest.hex()[:24]}.npy"
        if not path.exists():
            key = jax.random.key(int.from_bytes(digest[:4]))
            found = [self._look(video, jax.random.fold_in(key, number), number > 0) for number in range(self.copies)]
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            with partial.open("wb") as file:
                np.save(file, np.stack(found))
            partial.replace(path)
        return np.load(path)

    @functools.cached_property
    def _look(self) -> Any:
        """The compiled backbone: features [F] of a clip [T, H, W, 3], or of a copy of it."""
        from zoo.predictor import load

        predictor = load(self.backbone)
        graph, weights = nnx.split(predictor.model)
        sees = predictor.card.preprocessing

        @jax.jit
        def look(weights: nnx.State, video: jax.Array, key: jax.Array, is_copy: jax.Array) -> jax.Array:
            pixels = jnp.where(is_copy, altered(video, key), video.astype(jnp.float32))
            model: Any = nnx.merge(graph, weights)
            return model.features(to_float(pixels[None], sees["mean"], sees["std"]))[0]

        return functools.partial(look, weights)
