"""TAU: SimVP whose attention is a large window within a frame times what all of the frame says of each channel.

Tan et al. 2023, "Temporal Attention Unit: Towards Efficient Spatiotemporal Predictive Learning", arXiv:2206.12126. The
channels are the frames' features side by side, so what weighs channels weighs moments.
"""

import jax
from flax import nnx

from zoo.models.simvp import LargeKernel, SimVP
from zoo.registry import register_model

_SQUEEZED = 16  # features of the squeezed frame


class TemporalAttention(nnx.Module):
    """`[B, H, W, C]` to the same: attention within a frame, attention between channels, and what they look at."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.window = LargeKernel(features, rngs=rngs)
        self.value = nnx.Linear(features, features, rngs=rngs)
        # As published: squeezed to 16 features, or to a quarter where there are few.
        squeezed = features // max(features // _SQUEEZED, 4)
        self.squeeze = nnx.Linear(features, squeezed, use_bias=False, rngs=rngs)
        self.excite = nnx.Linear(squeezed, features, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        whole = x.mean(axis=(1, 2), keepdims=True)
        weights = jax.nn.sigmoid(self.excite(nnx.relu(self.squeeze(whole))))
        return weights * self.value(self.window(x)) * x


@register_model
def tau(
    *,
    channels: int = 1,
    frames: int = 10,
    spatial_features: int = 64,
    temporal_features: int = 512,
    num_blocks: int = 8,
    halvings: int = 2,
    mlp_ratio: int = 8,
    rngs: nnx.Rngs,
) -> SimVP:
    """A frame predictor; the defaults are those of OpenSTL's TAU on Moving MNIST, the arguments those of `simvp`."""
    sizes = (spatial_features, temporal_features, num_blocks, halvings, mlp_ratio)
    return SimVP(channels, frames, *sizes, TemporalAttention, rngs=rngs)
