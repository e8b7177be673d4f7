"""What carries a sequence along: recurrent layers, read-outs of all that was seen so far, and their state.

Everything that is causal here can go on where it stopped: what it takes as `state` it gives back after the sequence,
and a sequence in pieces gives what it gives as a whole.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.registry import unknown

CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


class Recurrent(nnx.Module):
    """Layers of LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014), `[B, T, in]` to `[B, T, features]`.

    A bidirectional layer reads the sequence backwards as well and concatenates what it knows of each step. No layers at
    all leave the sequence as it is.
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, cell: str, num_layers: int, bidirectional: bool, rngs: nnx.Rngs
    ):
        if cell not in CELLS:
            raise unknown("recurrent cell", cell, CELLS)
        self.is_causal = not bidirectional
        self.features = in_features
        self.forward: nnx.List[Any] = nnx.List([])
        self.backward: nnx.List[Any] = nnx.List([])
        for _ in range(num_layers):
            self.forward.append(nnx.RNN(CELLS[cell](self.features, hidden_features, rngs=rngs)))
            if bidirectional:
                read = CELLS[cell](self.features, hidden_features, rngs=rngs)
                self.backward.append(nnx.RNN(read, reverse=True, keep_order=True))
            self.features = hidden_features * (1 + bidirectional)
        self.hidden_features = hidden_features
        self.carries = 2 if cell == "lstm" else 1

    def initial_state(self, batch: int, dtype: Any) -> tuple[Any, ...]:
        """What the layers start from: zeros, for each layer `[batch, hidden_features]` once (GRU) or twice (LSTM)."""
        return tuple(self._zeros(batch, dtype) for _ in self.forward)

    def _zeros(self, batch: int, dtype: Any) -> Any:
        zeros = jnp.zeros((batch, self.hidden_features), dtype)
        return (zeros,) * 2 if self.carries == 2 else zeros

    def __call__(
        self, x: Float[Any, "batch time in"], state: tuple[Any, ...] | None = None
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        """The layers' outputs and their state after the last step; without `state` they start from zeros."""
        state = self.initial_state(len(x), x.dtype) if state is None else state
        after = []
        for index, layer in enumerate(self.forward):
            carry, y = layer(x, initial_carry=state[index], return_carry=True)
            if not self.is_causal:
                back = self.backward[index](x, initial_carry=self._zeros(len(x), x.dtype))
                y = jnp.concatenate([y, back], axis=-1)
            after.append(carry)
            x = y
        return x, tuple(after)


READOUTS = ("last", "mean", "attention")


class Readout(nnx.Module):
    """One vector of all steps so far: the last one, their mean, or a mean weighted by what a dense layer makes of each.

    `[B, T, F]` to `[B, T, F]`. The weights of "attention" are a softmax over the steps so far.
    """

    def __init__(self, features: int, kind: str, *, rngs: nnx.Rngs):
        if kind not in READOUTS:
            raise unknown("read-out", kind, READOUTS)
        self.kind, self.features = kind, features
        self.score = nnx.Linear(features, 1, rngs=rngs) if kind == "attention" else None

    def initial_state(self, batch: int) -> tuple[jax.Array, ...]:
        """Of the weights so far the largest score `[B, 1]` and the sum `[B, 1]`, and the weighted sum `[B, F]`."""
        if self.kind == "last":
            return ()
        return jnp.full((batch, 1), -jnp.inf), jnp.zeros((batch, 1)), jnp.zeros((batch, self.features))

    def __call__(
        self, x: Float[Any, "batch time features"], state: tuple[jax.Array, ...] | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """What stands for the steps up to each one, in x's dtype, and the state after the last; sums are float32."""
        state = self.initial_state(len(x)) if state is None else state
        if self.kind == "last":
            return x, state
        wide = x.astype(jnp.float32)
        scores = jnp.zeros((*x.shape[:2], 1)) if self.score is None else self.score(x).astype(jnp.float32)

        # Softmax as it goes along: all sums are relative to the largest score so far, so that none overflows.
        def step(state, of_step):
            largest, total, weighted = state
            score, value = of_step
            now = jnp.maximum(largest, score)
            kept, weight = jnp.exp(largest - now), jnp.exp(score - now)
            total, weighted = total * kept + weight, weighted * kept + weight * value
            return (now, total, weighted), weighted / total

        state, means = jax.lax.scan(step, state, (scores.swapaxes(0, 1), wide.swapaxes(0, 1)))
        return means.swapaxes(0, 1).astype(x.dtype), state


class SequenceClassifier(nnx.Module):
    """Recurrent layers, a read-out, dropout and a dense layer: `[B, T, in_features]` to logits `[B, num_classes]`."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_classes: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.recurrent = Recurrent(
            in_features, hidden_features, cell=cell, num_layers=num_layers, bidirectional=bidirectional, rngs=rngs
        )
        self.readout = Readout(self.recurrent.features, readout, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(self.recurrent.features, num_classes, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any) -> tuple[Any, ...]:
        return self.recurrent.initial_state(batch, dtype), self.readout.initial_state(batch)

    def features(self, x: Float[Any, "batch time in"]) -> Float[jax.Array, "batch features"]:
        """What the dense layer sees of the whole sequence."""
        outputs, _ = self.recurrent(x)
        if self.readout.kind == "last" and not self.recurrent.is_causal:
            # What was read backwards has seen everything at the first step.
            ahead, back = jnp.split(outputs, 2, axis=-1)
            return jnp.concatenate([ahead[:, -1], back[:, 0]], axis=-1)
        return self.readout(outputs)[0][:, -1]

    def __call__(self, x: Float[Any, "batch time in"]) -> Float[jax.Array, "batch classes"]:
        return self.head(self.dropout(self.features(x)))

    def along(
        self, x: Float[Any, "batch time in"], state: tuple[Any, ...] | None = None
    ) -> tuple[Float[jax.Array, "batch time classes"], tuple[Any, ...]]:
        """Logits of all that was seen up to each step, and the state with which the sequence goes on.

        Raises:
          ValueError: the layers are bidirectional, so they know nothing before the end.
        """
        if not self.recurrent.is_causal:
            raise ValueError("bidirectional layers have no answer before the sequence has ended")
        recurrent, readout = (None, None) if state is None else state
        outputs, recurrent = self.recurrent(x, recurrent)
        pooled, readout = self.readout(outputs, readout)
        return self.head(self.dropout(pooled)), (recurrent, readout)
