"""ConvLSTM: recurrent layers whose gates are convolutions read the frames seen, then go on from what they predict.

Shi et al. 2015, "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting",
arXiv:1506.04214. As in today's benchmarks (Tan et al. 2023, arXiv:2306.11249) the layers that encode are those that
forecast, and the frames are cut into patches.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from zoo import kernels
from zoo.models.layers import Conv
from zoo.models.roll_out import RecurrentPredictor
from zoo.registry import register_model

type LayerState = tuple[jax.Array, jax.Array]


class ConvLSTMLayer(nnx.Module):
    """`zoo.kernels.conv_lstm` with its parameters: `[B, T, h, w, in]` to `[B, T, h, w, features]`."""

    def __init__(self, in_features: int, features: int, kernel_size: int, *, rngs: nnx.Rngs):
        shape = (kernel_size, kernel_size, in_features + features, 4 * features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        # Gates are input, forget, cell, output; what forgets little at first learns sooner (Jozefowicz et al. 2015).
        self.bias = nnx.Param(jnp.zeros(4 * features).at[features : 2 * features].set(1.0))

    def __call__(self, x: jax.Array, state: LayerState) -> tuple[jax.Array, LayerState]:
        weights = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        return kernels.conv_lstm(x, *weights, initial_state=state)


class ConvLSTM(RecurrentPredictor):
    """A stack of ConvLSTM layers over patches, and a convolution of 1x1 that says what comes next."""

    def __init__(self, channels: int, patch: int, widths: Sequence[int], kernel_size: int, *, rngs: nnx.Rngs):
        super().__init__(patch, channels)
        features = patch**2 * channels
        self.widths = tuple(widths)
        below = (features, *self.widths)
        self.layers = nnx.List([ConvLSTMLayer(*pair, kernel_size, rngs=rngs) for pair in itertools.pairwise(below)])
        self.head = Conv(below[-1], features, (1, 1), kernel_init=nnx.initializers.lecun_normal(), rngs=rngs)

    def initial_state(self, patches: jax.Array) -> tuple[LayerState, ...]:
        zeros = (jnp.zeros((*patches.shape[:-1], width), patches.dtype) for width in self.widths)
        return tuple((zero, zero) for zero in zeros)

    def steps(self, patches: jax.Array, state: tuple[LayerState, ...]) -> tuple[jax.Array, tuple[LayerState, ...]]:
        """Layer by layer, each over all frames at once."""
        x, after = patches, []
        for layer, of_layer in zip(self.layers, state, strict=True):
            x, of_layer = layer(x, of_layer)
            after.append(of_layer)
        return self.head(x), tuple(after)

    def step(self, patches: jax.Array, state: tuple[LayerState, ...]) -> tuple[jax.Array, tuple[LayerState, ...]]:
        after, state = self.steps(patches[:, None], state)
        return after[:, 0], state


@register_model
def convlstm(
    *,
    channels: int = 1,
    patch: int = 4,
    widths: Sequence[int] = (128, 128, 128, 128),
    kernel_size: int = 5,
    rngs: nnx.Rngs,
) -> ConvLSTM:
    """A frame predictor; the defaults are those of OpenSTL's ConvLSTM on Moving MNIST.

    Args:
      patch: side of the squares of pixels that are the recurrent layers' places.
      widths: features of each layer.
    """
    return ConvLSTM(channels, patch, widths, kernel_size, rngs=rngs)
