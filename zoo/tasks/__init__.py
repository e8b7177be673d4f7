"""What a batch, a loss and a metric mean, one file a task.

A task has `loss(model, batch, key)`, `evaluate(model, batch, key)` and `show(model, folder, step, key)`. The first two
are pure functions under `jax.jit`; `show` writes pictures and clips for people to look at.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from flax import nnx

from zoo.tasks.classification import Classification
from zoo.tasks.detection import Detection
from zoo.tasks.distillation import FramewiseI3D, WindowedI3D
from zoo.tasks.embedding import Embedding
from zoo.tasks.generation import FlowMatching
from zoo.tasks.prediction import Prediction
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.speech import Speech
from zoo.tasks.tagging import Tagging

type Batch = Mapping[str, jax.Array | np.ndarray]


class Task(Protocol):
    """What the training loop needs to know of a task.

    Attributes:
      needs: arrays that the items of its data sets have.

    A loss is the mean of those of equal parts of the batch, and what is drawn for examples has them along its first
    axis: then each device can compute its own rows'. A task of which this is not so has a true `mixes_examples`.
    """

    needs: ClassVar[tuple[str, ...]]

    def prepared(self, train: Any, held_out: Any) -> tuple["Task", Any, Any]:
        """The task that knows the data, and what is trained and evaluated on in place of the data sets' items."""
        ...

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The scalar to minimise, and scalar figures to report beside it.

        The batch holds the share of the training that is over as well, "progress" from 0 to 1.
        """
        ...

    def evaluate(self, model: nnx.Module, batch: Batch, key: jax.Array) -> dict[str, Any]:
        """Figures of each item of a held-out batch, each `[B]`, or such and a bool `[B]`: which items they concern.

        Under "answers" there may be a tree of arrays `[B, ...]`; of those of all items `over_all(answers)` makes a dict
        of further figures.
        """
        ...

    def show(self, model: nnx.Module, folder: Any, step: int, key: jax.Array) -> list[Any]:
        """Writes pictures and clips into the folder and returns their paths; none if there is nothing to see."""
        ...


TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "detection": Detection,
    "embedding": Embedding,
    "generation": FlowMatching,
    "prediction": Prediction,
    "reconstruction": Reconstruction,
    "speech": Speech,
    "tagging": Tagging,
    "windowed_i3d": WindowedI3D,
    "framewise_i3d": FramewiseI3D,
}
