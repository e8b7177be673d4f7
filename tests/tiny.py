"""A published model small enough for a test: a network, the foreign layout of its weights and a card.

`python -m tests.tiny` does as a second process would: it loads the model `tiny_colours` from the folder of cards in
`ZOO_TEST_CARDS` and prints the sum of its weights. `python -m tests.tiny ARGUMENTS` is `zoo evaluate` with that folder,
and takes `ZOO_TEST_SECONDS` more for each video.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo import hub, registry
from zoo.download import sha256_of
from zoo.registry import ModelCard, WeightSource

LABELS = ("red", "green", "blue")
PREPROCESSING = {
    "num_frames": 4,
    "frame_rate": 10.0,
    "max_clips": 3,
    "resize_short": 8,
    "crop": 8,
    "interpolation": "bilinear",
    "mean": 127.5,
    "std": 127.5,
}


class Tiny(nnx.Module):
    """Logits of clips [B, T, H, W, 3] from their mean colour."""

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, num_classes, rngs=rngs)])
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        return self.norm(self.layers[0](x.mean(axis=(1, 2, 3)))).astype(x.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers[1](self.dropout(self.features(x)))


def tiny(*, num_classes: int = 3, rngs: nnx.Rngs) -> Tiny:
    return Tiny(num_classes, rngs=rngs)


def read(path: Path) -> dict[str, np.ndarray]:
    """The foreign layout: an .npz of arrays by dotted paths."""
    with np.load(path) as arrays:
        return dict(arrays)


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in foreign.items():
        node = tree
        *path, last = name.split(".")
        for key in path:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays by dotted paths, as a training might leave them."""
    rng = np.random.default_rng(seed)
    shapes = {
        "layers.0.kernel": (3, 5),
        "layers.0.bias": (5,),
        "layers.1.kernel": (5, 3),
        "layers.1.bias": (3,),
        "norm.scale": (5,),
        "norm.bias": (5,),
        "norm.mean": (5,),
    }
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**arrays, "norm.var": rng.uniform(0.5, 2, size=5).astype(np.float32)}


def save_foreign(path: Path, seed: int = 0) -> str:
    """Writes the weights in the foreign layout; returns the SHA-256."""
    np.savez(path, **weights(seed))
    return sha256_of(path)


def card(source: WeightSource, **changes: Any) -> ModelCard:
    fields = {
        "name": "tiny_colours",
        "arch": "tiny",
        "task": "classification",
        "description": "names the colour of a clip",
        "options": {"num_classes": 3},
        "source": source,
        "labels": LABELS,
        "preprocessing": PREPROCESSING,
        "parameters": 48,
        "flops": 60,
        "licence": "Apache-2.0",
        "attribution": "nobody's [work]",
        "protocol": "none",
        "metrics": {"top1": 1.0},
    }
    return ModelCard(**(fields | changes))


def publish(folder: Path, card: ModelCard) -> None:
    """Puts a card, and for the kind "checkpoint" its weights, where `zoo.load` finds them."""
    (folder / card.name).mkdir(parents=True, exist_ok=True)
    (folder / card.name / "card.json").write_text(card.to_json(), encoding="utf-8")


def publish_checkpoint(folder: Path, **changes: Any) -> ModelCard:
    """A card whose Orbax tree lies beside it."""
    name = changes.get("name", "tiny_colours")
    hub.save_weights(convert(weights(), None), folder / name / "weights")
    files = {
        str(path.relative_to(folder / name)): sha256_of(path)
        for path in (folder / name / "weights").rglob("*")
        if path.is_file()
    }
    made = card(WeightSource("checkpoint", files), **changes)
    publish(folder, made)
    return made


def register(set_item: Any, set_attribute: Any, cards: Path) -> None:
    """Makes the network and its layout known, and `cards` the folder of cards."""
    set_item(registry._ARCHITECTURES, "tiny", tiny)
    set_item(sys.modules, "zoo.convert.tiny", sys.modules[__name__])
    set_attribute(registry, "checkpoints_folder", lambda: cards)


if __name__ == "__main__":
    import zoo
    from zoo import command_line, evaluate
    from zoo.predictor import Classifier

    register(dict.__setitem__, setattr, Path(os.environ["ZOO_TEST_CARDS"]))
    if sys.argv[1:]:
        before = Classifier.probabilities

        def slowly(self: Classifier, clips: Any) -> np.ndarray:
            time.sleep(float(os.environ["ZOO_TEST_SECONDS"]))
            return before(self, clips)

        Classifier.probabilities = slowly
        command_line.run("zoo evaluate", evaluate.main)
    loaded = zoo.load("tiny_colours")
    print(sum(float(leaf.sum()) for leaf in jax.tree.leaves(hub.weights_of(loaded.model))))
