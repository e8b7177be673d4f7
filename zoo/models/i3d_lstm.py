"""I3D on short windows with an LSTM over them: an I3D that answers while the clip still runs.

I3D up to its last two blocks, where nearly all of the work is done, sees each window of 16 frames once and alone. The
last two blocks, which are 3 steps wide in time, see all windows as one clip: what they made of the latest step is made
anew when the next window comes, and nothing else is. So the classifier has, after each window, what it would have if
the clip ended there. It cannot know how the clip goes on; an LSTM along the windows learns what to expect.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.i3d import I3D
from zoo.models.recurrent import Recurrent
from zoo.registry import register_model

_STEPS = 2  # of the last blocks, 8 frames each, that a window of 16 frames gives


class I3DLSTM(nnx.Module):
    """Classifies clips `[B, T, 224, 224, 3]` in [-1, 1] by all windows so far; returns logits `[B, num_classes]`.

    The last frame is repeated to fill the last window.
    """

    window = 8 * _STEPS
    is_causal = True

    def __init__(self, num_classes: int, hidden_features: int, *, rngs: nnx.Rngs):
        self.i3d = I3D(num_classes, rngs=rngs)
        features = self.i3d.feature_size
        self.recurrent = Recurrent(
            2 * features, hidden_features, cell="lstm", num_layers=1, bidirectional=False, rngs=rngs
        )
        # From zeros, so that training starts from I3D's own answer.
        zeros = nnx.initializers.zeros
        self.correction = nnx.Linear(hidden_features, num_classes, kernel_init=zeros, rngs=rngs)

    def lower(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch windows 2 rows columns 832"]:
        """What the last two blocks see of each window."""
        x = jnp.concatenate([x, *[x[:, -1:]] * (-x.shape[1] % self.window)], axis=1)
        maps = self.i3d.lower(x.reshape(-1, self.window, *x.shape[2:]))
        return maps.reshape(len(x), -1, *maps.shape[1:])

    def initial_state(self, batch: int, dtype: Any, size: int = 7) -> dict[str, Any]:
        """What `along` starts from.

        steps `[batch]` seen so far; input, middle `[B, 2, size, size, 832]`: the last two of mixed_5b's inputs, and the last
        two of its outputs that no further step changes; first `[B, 1024]`: the first step's features, total: the sum of
        those of all steps that no further one changes; recurrent: the LSTM's.
        """
        inputs, middle = self.i3d.mixed_5b.in_features, self.i3d.mixed_5b.features
        features = jnp.zeros((batch, self.i3d.feature_size), dtype)
        return {
            "steps": jnp.zeros(batch, jnp.int32),
            "input": jnp.zeros((batch, 2, size, size, inputs), dtype),
            "middle": jnp.zeros((batch, 2, size, size, middle), dtype),
            "first": features,
            "total": features.astype(jnp.float32),
            "recurrent": self.recurrent.initial_state(batch, dtype),
        }

    def upper(self, state: dict[str, Any], maps: jax.Array) -> tuple[dict[str, Any], jax.Array, jax.Array]:
        """The last two blocks on one more window `[B, 2, rows, columns, 832]`, with n = `steps` steps before it.

        Returns:
          The state, the last activations of the steps n - 2 to n + 1 `[B, 4, rows, columns, 1024]`, and what I3D's
          classifier would see if the clip ended here `[B, 1024]`.
        """
        n = state["steps"]

        def there(x: jax.Array, first: jax.Array) -> jax.Array:
            """Zeros, as padding has them, for steps before the clip; x's first one is `first`."""
            is_there = first[:, None] + jnp.arange(x.shape[1]) >= 0
            return jnp.where(is_there[..., None, None, None], x, 0)

        # Each block runs from one step further back than is wanted: there its window reaches beyond what is here.
        inputs = jnp.concatenate([state["input"], maps], axis=1)
        fresh = there(self.i3d.mixed_5b(inputs)[:, 1:], n - 1)
        middle = jnp.concatenate([state["middle"], fresh], axis=1)
        last = there(self.i3d.mixed_5c(middle)[:, 1:], n - 2)

        features = last.mean(axis=(2, 3))
        n = n[:, None]
        first = jnp.where(n > 2, state["first"], jnp.where(n > 0, features[:, 0], features[:, 2]))
        total = state["total"] + features.astype(jnp.float32).sum(1)
        # I3D averages neighbouring steps and then all of those: the first and the last step count half.
        ends = (first + features[:, -1]).astype(jnp.float32) / 2
        seen = ((total - ends) / (n + 1)).astype(maps.dtype)
        state = state | {
            "steps": state["steps"] + _STEPS,
            "input": maps,
            "middle": fresh[:, :2],
            "first": first,
            "total": total - features[:, 2:].astype(jnp.float32).sum(1),
        }
        return state, last, seen

    def follow(
        self, maps: Float[jax.Array, "batch windows 2 rows columns 832"], state: dict[str, Any] | None = None
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        """What `lower` gives of each window, seen in turn.

        Returns:
          After each window logits `[B, windows, classes]`, `uncorrected` logits without the LSTM's part, and the last
          `activations` `[B, windows, 4, rows, columns, 1024]` of `upper`; and the state.
        """
        state = self.initial_state(len(maps), maps.dtype, maps.shape[-2]) if state is None else state
        recurrent = state.pop("recurrent")
        graph, weights = nnx.split(self)

        def step(state, maps):
            state, last, seen = nnx.merge(graph, weights).upper(state, maps)
            return state, (last, seen)

        state, (last, seen) = jax.lax.scan(step, state, maps.swapaxes(0, 1))
        last, seen = last.swapaxes(0, 1), seen.swapaxes(0, 1)
        now = last[:, :, 2:].mean(axis=(2, 3, 4))
        hidden, recurrent = self.recurrent(jnp.concatenate([seen, now], axis=-1), recurrent)
        uncorrected = self.i3d.classify(seen)
        logits = uncorrected + self.correction(hidden)
        return {"logits": logits, "uncorrected": uncorrected, "activations": last}, state | {"recurrent": recurrent}

    def along(
        self, x: Float[Any, "batch time height width 3"], state: dict[str, Any] | None = None
    ) -> tuple[Float[jax.Array, "batch windows classes"], dict[str, Any]]:
        """Logits of all that was seen up to each window, and the state with which the next frames go on.

        All but the last piece of a clip have a multiple of 16 frames.
        """
        found, state = self.follow(self.lower(x), state)
        return found["logits"], state

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        return self.along(x)[0][:, -1]


@register_model
def i3d_lstm(*, num_classes: int = 400, hidden_features: int = 512, rngs: nnx.Rngs) -> I3DLSTM:
    """I3D's 12.7M parameters and an LSTM's; `num_classes` defaults to Kinetics-400."""
    return I3DLSTM(num_classes, hidden_features, rngs=rngs)
