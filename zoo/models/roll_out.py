"""What all networks that predict frames have in common: seen frames in, frames to come out, as many as are wanted.

Frames are floats `[B, T, H, W, C]`, 0 black and 1 white. Each of these networks has

    __call__(context, horizon=10)   the frames after the context
    follow(video, context, given)   predictions of the last frames of a video, to learn from
    least_context                   how many frames it must have seen
    channels                        of a frame: 1 grey, 3 RGB
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from zoo.errors import UserError

type Memory = Any
"""What a recurrent network knows of the frames so far: a tree of arrays."""


def check_frames(frames: Any, least: int, multiple: int) -> None:
    """Raises a UserError unless there are `least` frames `[B, T, H, W, C]`, or more, whose sides divide."""
    time, height, width = frames.shape[1:4]
    if time < least:
        raise UserError(f"{time} frames are not enough to go on from; give {least} or more")
    if height % multiple or width % multiple:
        fits = [max(multiple, round(side / multiple) * multiple) for side in (height, width)]
        raise UserError(
            f"frames of {height}x{width} do not divide by {multiple}; resize or crop them, say to {fits[0]}x{fits[1]}"
        )


def to_patches(frames: Float[Any, "*batch height width channels"], patch: int) -> jax.Array:
    """Squares of pixels become channels: `[..., H, W, C]` to `[..., H / patch, W / patch, patch * patch * C]`."""
    *batch, height, width, channels = frames.shape
    split = jnp.asarray(frames).reshape(*batch, height // patch, patch, width // patch, patch, channels)
    return jnp.moveaxis(split, -4, -3).reshape(*batch, height // patch, width // patch, -1)


def from_patches(patches: jax.Array, patch: int) -> jax.Array:
    """The inverse of `to_patches`."""
    *batch, rows, columns, features = patches.shape
    split = patches.reshape(*batch, rows, columns, patch, patch, features // patch**2)
    return jnp.moveaxis(split, -3, -4).reshape(*batch, rows * patch, columns * patch, -1)


class RecurrentPredictor(nnx.Module):
    """Takes frames one after the other and says of each what comes next; beyond the last it goes on from its own.

    A subclass has `initial_state(patches)` for the patches `[B, h, w, P]` of a frame, and `step(patches, state)`, which
    gives what comes next, in patches, and the state after it.
    """

    least_context = 2  # one frame shows no motion

    def __init__(self, patch: int, channels: int):
        self.patch, self.channels = patch, channels

    def initial_state(self, patches: jax.Array) -> Memory:
        raise NotImplementedError

    def step(self, patches: jax.Array, state: Memory) -> tuple[jax.Array, Memory]:
        raise NotImplementedError

    def steps(self, patches: jax.Array, state: Memory) -> tuple[jax.Array, Memory]:
        """`step` over all frames of `[B, T, h, w, P]`."""

        def step(state: Memory, patches: jax.Array) -> tuple[Memory, jax.Array]:
            after, state = self.step(patches, state)
            return state, after

        state, after = jax.lax.scan(step, state, jnp.moveaxis(patches, 1, 0))
        return jnp.moveaxis(after, 0, 1), state

    def read(
        self, frames: Float[Any, "batch time height width channels"], state: Memory = None
    ) -> tuple[Float[jax.Array, "batch time height width channels"], Memory]:
        """What comes after each frame, and the state with which the next frames go on; a stream starts without one.

        Raises:
          UserError: the frames do not divide into patches.
        """
        check_frames(frames, 1, self.patch)
        patches = to_patches(frames, self.patch)
        after, state = self.steps(patches, self.initial_state(patches[:, 0]) if state is None else state)
        return from_patches(after, self.patch), state

    def follow(
        self,
        video: Float[Any, "batch time height width channels"],
        context: int,
        given: Bool[Any, "batch unseen"],
    ) -> Float[jax.Array, "batch steps height width channels"]:
        """Predictions of all frames but the first, each made of those before it.

        The first `context` frames are seen. In place of each later one but the last the network sees its own
        prediction, unless `given` `[B, T - context - 1]` is True (scheduled sampling: Bengio et al. 2015,
        arXiv:1506.03099).

        Raises:
          UserError: the context is too short, or the frames do not divide into patches.
        """
        check_frames(video[:, :context], self.least_context, self.patch)
        patches = to_patches(video, self.patch)
        seen, state = self.steps(patches[:, :context], self.initial_state(patches[:, 0]))

        def step(carry: tuple[jax.Array, Memory], of_step: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            own, state = carry
            truth, given = of_step
            own, state = self.step(jnp.where(given[:, None, None, None], truth, own), state)
            return (own, state), own

        unseen = jnp.moveaxis(patches[:, context:-1], 1, 0)
        _, ahead = jax.lax.scan(step, (seen[:, -1], state), (unseen, jnp.asarray(given).T))
        return from_patches(jnp.concatenate([seen, jnp.moveaxis(ahead, 0, 1)], axis=1), self.patch)

    def __call__(
        self, context: Float[Any, "batch time height width channels"], horizon: int = 10
    ) -> Float[jax.Array, "batch horizon height width channels"]:
        """The `horizon` frames after the context.

        Raises:
          UserError: as `follow`.
        """
        batch, time = context.shape[:2]
        video = jnp.pad(context, ((0, 0), (0, horizon), (0, 0), (0, 0), (0, 0)))
        return self.follow(video, time, jnp.zeros((batch, horizon - 1), bool))[:, -horizon:]


class WindowPredictor(nnx.Module):
    """Gives as many frames at once as it sees; beyond these it goes on from its own.

    A subclass has `window(frames)`, which gives the frames after `[B, frames, H, W, C]`.
    """

    def __init__(self, frames: int, multiple: int, channels: int):
        self.frames = self.least_context = frames
        self.multiple, self.channels = multiple, channels

    def window(self, frames: jax.Array) -> jax.Array:
        raise NotImplementedError

    def follow(
        self,
        video: Float[Any, "batch time height width channels"],
        context: int,
        given: Bool[Any, "batch unseen"],
    ) -> Float[jax.Array, "batch steps height width channels"]:
        """Predictions of all frames after the first `context`; there is nothing to be `given` on the way.

        Raises:
          UserError: the context is too short, or the sides of the frames do not divide by `multiple`.
        """
        del given
        return self(video[:, :context], video.shape[1] - context)

    def __call__(
        self, context: Float[Any, "batch time height width channels"], horizon: int = 10
    ) -> Float[jax.Array, "batch horizon height width channels"]:
        """The `horizon` frames after the context, of which it sees the last.

        Raises:
          UserError: as `follow`.
        """
        check_frames(context, self.frames, self.multiple)
        ahead = self.window(jnp.asarray(context)[:, -self.frames :])
        more = -(-horizon // self.frames) - 1
        if more:

            def step(frames: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
                frames = self.window(frames)
                return frames, frames

            _, windows = jax.lax.scan(step, ahead, length=more)
            ahead = jnp.concatenate([ahead, jnp.moveaxis(windows, 0, 1).reshape(len(ahead), -1, *ahead.shape[2:])], 1)
        return ahead[:, :horizon]
