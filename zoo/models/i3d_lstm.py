"""I3D on short windows with an LSTM over them: an I3D that answers while the clip still runs.

I3D up to its last two blocks, where nearly all of the work is done, goes over each window of 16 frames once: its layers
remember what was before the window and take it that the picture stays as it is behind it. (With zeros there, as at the
end of a clip, features are several times as far from those of the whole clip.) The last two blocks begin again with the
last steps when the next window comes, so that the classifier has, after each window, what it would have if the clip
ended there. How the clip goes on it cannot know; an LSTM along the windows learns what to expect.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.i3d import I3D
from zoo.models.i3d_pieces import Before, Piece
from zoo.models.layers import max_pool
from zoo.models.recurrent import Recurrent
from zoo.registry import register_model

_STEPS = 2  # of the last blocks, 8 frames each, that a window of 16 frames gives

type State = dict[str, Any]


class I3DLSTM(nnx.Module):
    """Classifies clips `[B, T, 224, 224, 3]` in [-1, 1] by all windows so far; returns logits `[B, num_classes]`.

    The last frame is repeated to fill the last window.
    """

    window = 8 * _STEPS
    is_causal = True

    def __init__(self, num_classes: int, hidden_features: int, *, rngs: nnx.Rngs):
        self.i3d = I3D(num_classes, rngs=rngs)
        features, num_layers = 2 * self.i3d.feature_size, int(hidden_features > 0)
        self.recurrent = Recurrent(
            features, hidden_features, cell="lstm", num_layers=num_layers, bidirectional=False, rngs=rngs
        )
        # From zeros, so that training starts from I3D's own answer.
        zeros = nnx.initializers.zeros
        self.correction = nnx.Linear(hidden_features, num_classes, kernel_init=zeros, rngs=rngs) if num_layers else None

    def initial_state(self, batch: int, dtype: Any, size: int = 224) -> State:
        """What `along` starts from, for frames of `size` pixels a side.

        lower, block_b, block_c: what the layers of I3D's lower part and of its last two blocks remember. input, middle:
        the one step of the last two blocks' inputs that they begin with again. steps `[batch]`: how many were seen.
        first `[batch, 1024]`: the features of the first; total: the sum of the features of those that no further step
        changes. recurrent: the LSTM's.
        """

        def after_a_window(x: jax.Array) -> State:
            maps, lower = self._lower(None, x)
            features = jnp.zeros((batch, self.i3d.feature_size), dtype)
            return {"lower": lower} | self._upper(
                {
                    "block_b": None,
                    "block_c": None,
                    "input": maps[:, :1],
                    "middle": jnp.zeros((*maps[:, :1].shape[:-1], self.i3d.mixed_5b.features), dtype),
                    "steps": jnp.zeros(batch, jnp.int32),
                    "first": features,
                    "total": features.astype(jnp.float32),
                },
                maps,
            )[0]

        shapes = jax.eval_shape(after_a_window, jax.ShapeDtypeStruct((batch, self.window, size, size, 3), dtype))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return zeros | {"recurrent": self.recurrent.initial_state(batch, dtype)}

    def _lower(self, before: Before | None, x: jax.Array) -> tuple[jax.Array, Before]:
        """What the last two blocks see of a window `[B, 16, H, W, 3]`: `[B, 2, H / 32, W / 32, 832]`."""
        piece = Piece(before, guess="last")
        x = piece.unit(self.i3d.conv_1a, x)
        x = max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding="SAME")
        x = piece.unit(self.i3d.conv_2c, self.i3d.conv_2b(x))
        x = max_pool(x, window=(1, 3, 3), strides=(1, 2, 2), padding="SAME")
        x = piece.block(self.i3d.mixed_3c, piece.block(self.i3d.mixed_3b, x))
        x = piece.pool(x, (3, 3, 3), (2, 2, 2))
        for name in ("mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f"):
            x = piece.block(getattr(self.i3d, name), x)
        return max_pool(x, window=(2, 2, 2), strides=2, padding="SAME"), piece.after

    def _upper(self, state: State, maps: jax.Array) -> tuple[State, tuple[jax.Array, jax.Array]]:
        """The last two blocks on one more window `[B, 2, rows, columns, 832]`, with n = `steps` steps before it.

        Returns:
          The state; the last activations of the steps n - 2 to n + 1 `[B, 4, rows, columns, 1024]`, and what I3D's
          classifier would see if the clip ended here `[B, 1024]`.
        """
        n = state["steps"][:, None]
        # Windows are 3 steps: of mixed_5b what was made of step n - 1 is no longer right, of mixed_5c that of n - 2.
        of_b = Piece(state["block_b"], guess="zeros", provisional=1, is_there=n + jnp.arange(-1, 2) >= 0)
        fresh = of_b.block(self.i3d.mixed_5b, jnp.concatenate([state["input"], maps], axis=1))
        is_there = n + jnp.arange(-2, 2) >= 0
        of_c = Piece(state["block_c"], guess="zeros", provisional=2, is_there=is_there)
        last = of_c.block(self.i3d.mixed_5c, jnp.concatenate([state["middle"], fresh], axis=1))

        features = jnp.where(is_there[..., None], last.mean(axis=(2, 3)), 0)
        first = jnp.where(n > 2, state["first"], jnp.where(n > 0, features[:, 0], features[:, 2]))
        total = state["total"] + features.astype(jnp.float32).sum(1)
        # I3D averages neighbouring steps and then all of those: the first and the last step count half.
        ends = (first + features[:, -1]).astype(jnp.float32) / 2
        seen = ((total - ends) / (n + 1)).astype(maps.dtype)
        after = {
            "block_b": of_b.after,
            "block_c": of_c.after,
            "input": maps[:, 1:],
            "middle": fresh[:, 1:2],
            "steps": state["steps"] + _STEPS,
            "first": first,
            "total": total - features[:, 2:].astype(jnp.float32).sum(1),
        }
        return after, (last, seen)

    def lower(
        self, x: Float[Any, "batch time height width 3"], before: Before
    ) -> tuple[Float[jax.Array, "batch windows 2 rows columns 832"], Before]:
        """What the last two blocks see of each window, one after the other; `before` is the state's `lower`."""
        x = jnp.concatenate([x, *[x[:, -1:]] * (-x.shape[1] % self.window)], axis=1)
        windows = x.reshape(len(x), -1, self.window, *x.shape[2:]).swapaxes(0, 1)

        def step(before: Before, window: jax.Array) -> tuple[Before, jax.Array]:
            maps, after = self._lower(before, window)
            return after, maps

        after, maps = jax.lax.scan(step, before, windows)
        return maps.swapaxes(0, 1), after

    def follow(
        self, maps: Float[jax.Array, "batch windows 2 rows columns 832"], state: State
    ) -> tuple[dict[str, jax.Array], State]:
        """What becomes of the windows that `lower` made, seen in turn; `state` without its `lower`.

        Returns:
          After each window `logits` `[B, windows, classes]`, `uncorrected` ones without the LSTM's part, and the last
          `activations` of the latest four steps `[B, windows, 4, rows, columns, 1024]`; and the state.
        """
        state = dict(state)
        recurrent = state.pop("recurrent")
        state, (last, seen) = jax.lax.scan(self._upper, state, maps.swapaxes(0, 1))
        last, seen = last.swapaxes(0, 1), seen.swapaxes(0, 1)
        now = last[:, :, 2:].mean(axis=(2, 3, 4))
        hidden, recurrent = self.recurrent(jnp.concatenate([seen, now], axis=-1), recurrent)
        uncorrected = self.i3d.classify(seen)
        logits = uncorrected if self.correction is None else uncorrected + self.correction(hidden)
        return {"logits": logits, "uncorrected": uncorrected, "activations": last}, state | {"recurrent": recurrent}

    def along(
        self, x: Float[Any, "batch time height width 3"], state: State | None = None
    ) -> tuple[Float[jax.Array, "batch windows classes"], State]:
        """Logits of all that was seen up to each window, and the state with which the next frames go on.

        All but the last piece of a clip have a multiple of 16 frames.
        """
        state = dict(self.initial_state(len(x), x.dtype, x.shape[2]) if state is None else state)
        maps, lower = self.lower(x, state.pop("lower"))
        found, state = self.follow(maps, state)
        return found["logits"], state | {"lower": lower}

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        return self.along(x)[0][:, -1]


@register_model
def i3d_lstm(*, num_classes: int = 400, hidden_features: int = 512, rngs: nnx.Rngs) -> I3DLSTM:
    """I3D's 12.7M parameters and an LSTM's, none with 0 `hidden_features`; `num_classes` defaults to Kinetics-400."""
    return I3DLSTM(num_classes, hidden_features, rngs=rngs)
