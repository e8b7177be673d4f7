"""From what CenterNet says at every place to boxes, and how much boxes overlap."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zoo.models.layers import max_pool

MOST = 100  # boxes an image, as CenterNet's authors keep and COCO's protocol counts


def peaks(
    answers: Float[jax.Array, "batch rows columns answers"], stride: int, count: int = MOST
) -> tuple[Float[jax.Array, "batch count 4"], Float[jax.Array, "batch count"], Int[jax.Array, "batch count"]]:
    """The likeliest objects of each image, best first: boxes, scores and classes.

    An object stands where no place next to it is likelier for its class (arXiv:1904.07850, section 4.1).

    Args:
      answers: class logits, then distances to the left, upper, right and lower side in pixels.
      stride: pixels of the image from one place to the next.
      count: how many are kept; scores of what is no peak are 0.

    Returns:
      (left, top, right, bottom) in pixels of the image; probabilities; numbers of classes.
    """
    batch, _, columns, _ = answers.shape
    scores = jax.nn.sigmoid(answers[..., :-4].astype(jnp.float32))
    highest = max_pool(scores, window=(3, 3), strides=(1, 1), padding="SAME")
    num_classes = scores.shape[-1]
    best, places = jax.lax.top_k(jnp.where(scores == highest, scores, 0).reshape(batch, -1), count)
    cells, classes = places // num_classes, places % num_classes
    middle = jnp.stack([cells % columns, cells // columns], axis=-1).astype(jnp.float32) * stride
    distances = answers[..., -4:].astype(jnp.float32).reshape(batch, -1, 4)
    distances = jnp.take_along_axis(distances, cells[..., None], axis=1)
    boxes = jnp.concatenate([middle - distances[..., :2], middle + distances[..., 2:]], axis=-1)
    return boxes, best, classes


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with each other one: `[N, 4]` and `[M, 4]` to float64 `[N, M]`."""
    boxes, others = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    both = np.prod(np.maximum(sides, 0), axis=-1)
    either = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) + np.prod(others[..., 2:] - others[..., :2], axis=-1)
    return np.divide(both, either - both, out=np.zeros_like(both), where=either > both)


def without_doubles(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, most_overlap: float) -> np.ndarray:
    """Numbers of the boxes that stay, best first: one that a better one of its class covers is the same object."""
    order = np.argsort(-scores, kind="stable")
    covered = (overlaps(boxes, boxes) > most_overlap) & (classes[:, None] == classes[None])
    kept: list[int] = []
    for index in order:
        if not covered[index, kept].any():
            kept.append(int(index))
    return np.array(kept, int)
