"""A clip network whose features are corrected for what they are compared for, such as finding copies of a clip.

The network itself may stay as it is, and with it what it says of a clip: only its features change. A learnt head over
frozen features is how contrastive features are adapted cheaply; the head of SimCLR (Chen et al. 2020, arXiv:2002.05709)
is thrown away after training, this one is kept.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.cnn_lstm import CLIP_CNNS
from zoo.registry import register_model, unknown


class Embedder(nnx.Module):
    """Logits of clips `[B, T, H, W, 3]`, which are the backbone's, and features that are learnt.

    Attributes:
      backbone: one of `CLIP_CNNS`.
    """

    def __init__(self, backbone: Any, *, rngs: nnx.Rngs):
        self.backbone, self.feature_size = backbone, backbone.feature_size
        # From zeros, so that training starts from the backbone's own features, and weight decay leads back to them.
        zeros = nnx.initializers.zeros
        self.correction = nnx.Linear(self.feature_size, self.feature_size, kernel_init=zeros, rngs=rngs)

    def project(self, features: Float[Any, "*batch features"]) -> Float[jax.Array, "*batch features"]:
        """The backbone's features, of which only the direction counts, corrected; their mean square is about 1."""
        mean_square = jnp.square(features).mean(axis=-1, keepdims=True)
        x = features * jax.lax.rsqrt(jnp.maximum(mean_square, 1e-12))
        return x + self.correction(x)

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch features"]:
        return self.project(self.backbone.features(x))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        return self.backbone(x)


@register_model
def embedder(*, num_classes: int = 400, backbone: str = "i3d", rngs: nnx.Rngs) -> Embedder:
    """An `Embedder` over one of `zoo.models.cnn_lstm.CLIP_CNNS`; the default classes are Kinetics-400's."""
    if backbone not in CLIP_CNNS:
        raise unknown("backbone", backbone, CLIP_CNNS)
    return Embedder(CLIP_CNNS[backbone](num_classes=num_classes, rngs=rngs), rngs=rngs)
