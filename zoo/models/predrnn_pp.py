"""PredRNN++: a second memory zigzags through the layers, and a highway carries gradients through time.

Wang et al. 2018, "PredRNN++: Towards A Resolution of the Deep-in-Time Dilemma in Spatiotemporal Predictive Learning",
arXiv:1804.06300, without layer normalisation, as in OpenSTL's benchmark (arXiv:2306.11249).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.models.layers import Conv
from zoo.models.roll_out import RecurrentPredictor
from zoo.registry import register_model

_FORGET_BIAS = 1.0


def _conv(in_features: int, features: int, kernel_size: int, rngs: nnx.Rngs) -> Conv:
    return Conv(in_features, features, (kernel_size, kernel_size), use_bias=False, rngs=rngs)


class CausalLSTM(nnx.Module):
    """An LSTM whose spatial memory is gated by what its temporal memory has just become (section 3.1)."""

    def __init__(self, in_features: int, features: int, kernel_size: int, *, rngs: nnx.Rngs):
        self.of_input = _conv(in_features, 7 * features, kernel_size, rngs)
        self.of_hidden = _conv(features, 4 * features, kernel_size, rngs)
        self.of_cell = _conv(features, 3 * features, kernel_size, rngs)
        self.of_memory = _conv(features, 3 * features, kernel_size, rngs)
        self.of_new_cell = _conv(features, 4 * features, kernel_size, rngs)
        self.of_new_memory = _conv(features, features, kernel_size, rngs)
        self.mix = _conv(2 * features, features, 1, rngs)

    def __call__(
        self, x: jax.Array, hidden: jax.Array, cell: jax.Array, memory: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x `[B, h, w, in]`, the others `[B, h, w, features]`; the new hidden state, cell and memory."""
        *of_cell, input_m, forget_m, gate_m, output = jnp.split(self.of_input(x), 7, axis=-1)
        *of_hidden, output_hidden = jnp.split(self.of_hidden(hidden), 4, axis=-1)
        before = jnp.split(self.of_cell(cell), 3, axis=-1)
        input_c, forget_c, gate_c = map(sum, zip(of_cell, of_hidden, before, strict=True))
        cell = jax.nn.sigmoid(forget_c + _FORGET_BIAS) * cell + jax.nn.sigmoid(input_c) * jnp.tanh(gate_c)

        input_cell, forget_cell, gate_cell, output_cell = jnp.split(self.of_new_cell(cell), 4, axis=-1)
        input_memory, forget_memory, kept = jnp.split(self.of_memory(memory), 3, axis=-1)
        forget = jax.nn.sigmoid(forget_m + forget_memory + forget_cell + _FORGET_BIAS)
        write = jax.nn.sigmoid(input_m + input_memory + input_cell)
        memory = forget * jnp.tanh(kept) + write * jnp.tanh(gate_m + gate_cell)

        output = jnp.tanh(output + output_hidden + output_cell + self.of_new_memory(memory))
        return output * jnp.tanh(self.mix(jnp.concatenate([cell, memory], axis=-1))), cell, memory


class GradientHighway(nnx.Module):
    """A gated shortcut from step to step, between the first two layers (section 3.2)."""

    def __init__(self, features: int, kernel_size: int, *, rngs: nnx.Rngs):
        self.of_input = _conv(features, 2 * features, kernel_size, rngs)
        self.of_highway = _conv(features, 2 * features, kernel_size, rngs)

    def __call__(self, x: jax.Array, highway: jax.Array) -> jax.Array:
        new, switch = jnp.split(self.of_input(x) + self.of_highway(highway), 2, axis=-1)
        switch = jax.nn.sigmoid(switch)
        return switch * jnp.tanh(new) + (1 - switch) * highway


class PredRNNPlusPlus(RecurrentPredictor):
    """Causal LSTMs over patches; the topmost's memory goes to the lowest at the next step."""

    def __init__(self, channels: int, patch: int, features: int, num_layers: int, kernel_size: int, *, rngs: nnx.Rngs):
        super().__init__(patch, channels)
        self.features = features
        pixels = patch**2 * channels
        below = (pixels, *[features] * (num_layers - 1))
        self.layers = nnx.List([CausalLSTM(width, features, kernel_size, rngs=rngs) for width in below])
        self.highway = GradientHighway(features, kernel_size, rngs=rngs)
        self.head = _conv(features, pixels, 1, rngs)

    def initial_state(self, patches: jax.Array) -> tuple[jax.Array, ...]:
        """The layers' hidden states and cells `[layers, B, h, w, F]`, the memory and the highway `[B, h, w, F]`."""
        zero = jnp.zeros((*patches.shape[:-1], self.features), patches.dtype)
        each = jnp.stack([zero] * len(self.layers))
        return each, each, zero, zero

    def step(self, patches: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        hidden, cells, memory, highway = state
        x, new = patches, []
        for number, layer in enumerate(self.layers):
            x, cell, memory = layer(x, hidden[number], cells[number], memory)
            new.append((x, cell))
            if number == 0:
                x = highway = self.highway(x, highway)
        hidden, cells = map(jnp.stack, zip(*new, strict=True))
        return self.head(x), (hidden, cells, memory, highway)


@register_model
def predrnn_pp(
    *,
    channels: int = 1,
    patch: int = 4,
    features: int = 128,
    num_layers: int = 4,
    kernel_size: int = 5,
    rngs: nnx.Rngs,
) -> PredRNNPlusPlus:
    """A frame predictor; the defaults are those of OpenSTL's PredRNN++ on Moving MNIST."""
    return PredRNNPlusPlus(channels, patch, features, num_layers, kernel_size, rngs=rngs)
