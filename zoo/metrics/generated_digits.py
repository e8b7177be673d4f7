"""Which digits a drawn clip shows, told by a classifier that was trained on real clips and saw no drawn one."""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo.configs import TrainConfig
from zoo.data import loader
from zoo.models.layers import Conv, max_pool
from zoo.optimizers import make_optimizer
from zoo.tasks.prediction import to_unit

_MOST = 2  # digits of a class in a clip
_BATCH = 64  # frames


class _Network(nnx.Module):
    """Logits [N, classes, 1 + _MOST] of how often each class is seen in frames [N, H, W, C] from 0, black, to 1.

    Without any normalisation, so that black stays black wherever it is and the largest feature is a digit's.
    """

    def __init__(self, channels: int, num_classes: int, *, rngs: nnx.Rngs):
        widths = (channels, 32, 64, 128)
        self.convs = nnx.List(
            Conv(below, width, (side, side), strides=stride, rngs=rngs)
            for below, width, side, stride in zip(widths, widths[1:], (5, 3, 3), (2, 1, 1), strict=False)
        )
        self.seen = nnx.Linear(widths[-1], 256, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.hidden = nnx.Linear(2 * 256, 128, rngs=rngs)
        self.head = nnx.Linear(128, num_classes * (1 + _MOST), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        first, *others = self.convs
        x = nnx.relu(first(x))
        for conv in others:
            x = nnx.relu(conv(max_pool(x, window=(2, 2), strides=(2, 2), padding="VALID")))
        x = nnx.relu(self.seen(x))
        x = jnp.concatenate([x.max((1, 2)), x.mean((1, 2))], axis=-1)
        return self.head(nnx.relu(self.hidden(self.dropout(x)))).reshape(len(x), -1, 1 + _MOST)


@dataclasses.dataclass(frozen=True)
class DigitReader:
    """Called with clips uint8 [N, T, H, W, C] it tells how often each digit is seen: int [N, classes]."""

    network: nnx.Module

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        weights, size = nnx.split(self.network), _BATCH // clips.shape[1]
        parts = [clips[start : start + size] for start in range(0, len(clips), size)]
        # Batches of one shape compile once.
        whole = [np.pad(part, ((0, size - len(part)), *[(0, 0)] * 4)) for part in parts]
        return np.concatenate([np.asarray(_read(*weights, part)) for part in whole])[: len(clips)]


@jax.jit(static_argnums=0)
def _read(graph: nnx.GraphDef, state: nnx.State, clips: jax.Array) -> jax.Array:
    """What all frames of a clip together make likeliest: digits that hide each other in some are seen in others."""
    network: Any = nnx.merge(graph, state)
    logits = network(to_unit(clips).reshape(-1, *clips.shape[2:]))
    return nnx.log_softmax(logits).reshape(*clips.shape[:2], *logits.shape[1:]).mean(axis=1).argmax(axis=-1)


def agreement(read: np.ndarray, asked: np.ndarray) -> float:
    """The share of clips that show all that was asked for and nothing else; both are counts [N, classes]."""
    return float((read == asked).all(axis=1).mean())


def train_reader(sources: Sequence[Any], steps: int = 4000, seed: int = 0) -> DigitReader:
    """Trains on single frames, as many of each source; the same each time on the same machine.

    Args:
      sources: of items `{"video": uint8 [1, H, W, C], "classes": float32 [classes]}`, no class more than twice.
    """
    channels, num_classes = sources[0][0]["video"].shape[-1], sources[0].num_classes
    network = nnx.jit(lambda: _Network(channels, num_classes, rngs=nnx.Rngs(seed)))()
    told = TrainConfig("", "", "", steps, _BATCH, learning_rate=0.02, optimizer="muon")
    optimizer = nnx.Optimizer(network, make_optimizer(told), wrt=nnx.Param)
    step = nnx.jit(_step)
    with contextlib.ExitStack() as stack:
        each = [loader.training_batches(source, _BATCH // len(sources), seed) for source in sources]
        for batches in each:
            stack.callback(batches.close)
        for parts in itertools.islice(zip(*each, strict=True), steps):
            frames, counts = (np.concatenate([part[name] for part in parts]) for name in ("video", "classes"))
            step(network, optimizer, frames[:, 0], counts)
    network.eval()
    return DigitReader(network)


def _step(network: Any, optimizer: Any, frames: Any, counts: Any) -> None:
    def loss(network: Any) -> jax.Array:
        logits = network(to_unit(frames))
        return optax.softmax_cross_entropy_with_integer_labels(logits, counts.astype(jnp.int32)).sum(axis=1).mean()

    optimizer.update(network, nnx.grad(loss)(network))
