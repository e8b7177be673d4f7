"""From MoveNet's maps to the joints of one person."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zoo.models.movenet import HEADS, JOINTS

# Added to a distance, in places, before a score is divided by it; and what a place is of the side of the published
# network's 48x48: both as its graph has them, in half precision.
_NEAR, _PLACE = 1.7998046875, 0.0208282470703125


def joints(answers: Float[jax.Array, "batch rows columns answers"]) -> Float[jax.Array, "batch 17 3"]:
    """The joints of the person nearest to the middle of each image.

    The likeliest middle of a person, weighted by its nearness to the image's own, says where each joint should be; the
    likeliest place of that joint near there is taken (the blog that MoveNet's authors wrote of it).

    Args:
      answers: what `MoveNet` gives.

    Returns:
      For each joint its place down and right in the image, from 0 to 1, and its probability.
    """
    batch, rows, columns, _ = answers.shape
    maps, start = {}, 0
    for name, count in HEADS.items():
        maps[name] = answers[..., start : start + count].astype(jnp.float32)
        start += count
    heat = jax.nn.sigmoid(maps["heat"])
    row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    central = jnp.hypot(row - rows / 2, column - columns / 2) + _NEAR
    middle = (jax.nn.sigmoid(maps["middle"][..., 0]) / central).reshape(batch, -1).argmax(axis=-1)

    def at(name: str, places: jax.Array) -> jax.Array:
        """`[B, N, answers]` of places `[B, N]`."""
        return jnp.take_along_axis(maps[name].reshape(batch, rows * columns, -1), places[..., None], axis=1)

    reach = at("reach", middle[:, None]).reshape(batch, len(JOINTS), 2)
    expected = reach + jnp.stack([middle // columns, middle % columns], axis=-1)[:, None]
    distance = jnp.sqrt(
        (row[..., None] - expected[:, None, None, :, 0]) ** 2 + (column[..., None] - expected[:, None, None, :, 1]) ** 2
    )
    near = (heat / (distance + _NEAR)).reshape(batch, rows * columns, len(JOINTS))
    places = near.argmax(axis=1)
    joint = jnp.arange(len(JOINTS))
    offsets = at("offsets", places).reshape(batch, len(JOINTS), len(JOINTS), 2)[:, joint, joint]
    found = jnp.stack([places // columns, places % columns], axis=-1) + offsets
    scores = jnp.take_along_axis(heat.reshape(batch, rows * columns, -1), places[:, None], axis=1)[:, 0]
    scale = _PLACE * jnp.array([48 / rows, 48 / columns])
    return jnp.concatenate([found * scale, scores[..., None]], axis=-1)
