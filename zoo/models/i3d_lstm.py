"""I3D on short windows with an LSTM over them: an I3D that answers while the clip still runs.

I3D up to its last two blocks, where nearly all of the work is done, goes over each window of 16 frames once: its layers
remember what was before the window and take it that the picture stays as it is behind it. (With zeros there features
are several times as far from those of the whole clip.) The last two blocks begin again with the last steps when the
next window comes. How the clip goes on they cannot know; an LSTM along the windows learns what to expect.

When the clip ends there is nothing more to expect, and zeros behind the last window are what I3D sees there: the answer
of a whole clip is I3D's own classifier on features that are nearly I3D's.
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
    revises_at_end = True  # once the clip has ended, the last window looks otherwise

    def __init__(self, num_classes: int, hidden_features: int, *, rngs: nnx.Rngs):
        self.i3d = I3D(num_classes, rngs=rngs)
        features, num_layers = 2 * self.i3d.feature_size, int(hidden_features > 0)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.recurrent = Recurrent(
            features, hidden_features, cell="lstm", num_layers=num_layers, bidirectional=False, rngs=rngs
        )
        # From zeros, so that training starts from I3D's own answer.
        zeros = nnx.initializers.zeros
        self.correction = nnx.Linear(self.recurrent.features, num_classes, kernel_init=zeros, rngs=rngs)
        self.log_gain = nnx.Linear(self.recurrent.features, 1, kernel_init=zeros, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any, size: int = 224) -> State:
        """What `along` starts from, for frames of `size` pixels a side.

        lower, block_b, block_c: what the layers of I3D's lower part and of its last two blocks remember. input, middle:
        the one step of the last two blocks' inputs that they begin with again. steps `[batch]`: how many were seen.
        first `[batch, 1024]`: the features of the first; total: the sum of the features of those that no further step
        changes. recurrent: the LSTM's.
        """

        def after_a_window(x: jax.Array) -> State:
            maps, lower = self._lower(None, x, False)
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

    def _lower(self, before: Before | None, x: jax.Array, ends: bool | jax.Array) -> tuple[jax.Array, Before]:
        """What the last two blocks see of a window `[B, 16, H, W, 3]`: `[B, 2, H / 32, W / 32, 832]`."""
        piece = Piece(before, ends=ends)
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
        of_b = Piece(state["block_b"], ends=True, provisional=1, is_there=n + jnp.arange(-1, 2) >= 0)
        fresh = of_b.block(self.i3d.mixed_5b, jnp.concatenate([state["input"], maps], axis=1))
        is_there = n + jnp.arange(-2, 2) >= 0
        of_c = Piece(state["block_c"], ends=True, provisional=2, is_there=is_there)
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

    def see(
        self, x: Float[Any, "batch time height width 3"], state: State, *, ends: bool = False
    ) -> tuple[Float[jax.Array, "batch windows 2048"], State]:
        """After each window the features of all windows so far, and beside them those of the latest alone.

        `ends` says that the clip ends with x. `state` is left without its `recurrent`, which nothing here depends on.
        """
        x = jnp.concatenate([x, *[x[:, -1:]] * (-x.shape[1] % self.window)], axis=1)
        windows = x.reshape(len(x), -1, self.window, *x.shape[2:]).swapaxes(0, 1)
        is_last = jnp.arange(len(windows)) == len(windows) - 1

        def step(state: State, window: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            frames, ends = window
            state = dict(state)
            maps, lower = self._lower(state.pop("lower"), frames, ends)
            state, (last, seen) = self._upper(state, maps)
            now = last[:, 2:].mean(axis=(1, 2, 3))
            return {"lower": lower} | state, jnp.concatenate([seen, now], axis=-1)

        start = {name: part for name, part in state.items() if name != "recurrent"}
        state, features = jax.lax.scan(step, start, (windows, is_last & ends))
        return features.swapaxes(0, 1), state

    def expect(
        self, features: Float[jax.Array, "batch windows 2048"], recurrent: Any = None
    ) -> tuple[dict[str, jax.Array], Any]:
        """Of what `see` found, after each window: `logits` `[B, windows, classes]`, and `uncorrected` ones.

        The latter are the classifier's on what was seen so far, without the LSTM's part.
        """
        hidden, recurrent = self.recurrent(self.dropout(features), recurrent)
        uncorrected = self.i3d.classify(features[..., : self.i3d.feature_size])
        # By the gain it says how sure one can be so early, by the correction of what.
        logits = uncorrected * jnp.exp(self.log_gain(hidden)) + self.correction(hidden)
        return {"logits": logits, "uncorrected": uncorrected}, recurrent

    def along(
        self, x: Float[Any, "batch time height width 3"], state: State | None = None, *, ends: bool = False
    ) -> tuple[Float[jax.Array, "batch windows classes"], State]:
        """Logits of all that was seen up to each window, and the state with which the next frames go on.

        All but the last piece of a clip have a multiple of 16 frames. `ends` says that x is the last.
        """
        state = self.initial_state(len(x), x.dtype, x.shape[2]) if state is None else state
        features, after = self.see(x, state, ends=ends)
        found, recurrent = self.expect(features, state["recurrent"])
        logits = found["logits"]
        if ends:
            logits = logits.at[:, -1].set(found["uncorrected"][:, -1])
        return logits, after | {"recurrent": recurrent}

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        return self.along(x, ends=True)[0][:, -1]


@register_model
def i3d_lstm(*, num_classes: int = 400, hidden_features: int = 128, rngs: nnx.Rngs) -> I3DLSTM:
    """I3D's 12.7M parameters and an LSTM's; `num_classes` defaults to Kinetics-400.

    With 0 `hidden_features` there is no LSTM, and its part is made of the means over all so far and over the latest.
    """
    return I3DLSTM(num_classes, hidden_features, rngs=rngs)
