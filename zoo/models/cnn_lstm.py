"""CNN-LSTM: a frame CNN looks at every frame, an LSTM carries what was seen along the clip.

After Donahue et al. 2015, "Long-term Recurrent Convolutional Networks", arXiv:1411.4389.
"""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Float

from zoo.models.cnn_2d import CNN2D, cnn_2d
from zoo.models.efficientnet_lite import EfficientNetLite0, efficientnet_lite0
from zoo.models.lstm import LSTM
from zoo.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from zoo.models.resnet import ResNet, resnet18, resnet50
from zoo.registry import register_model, unknown

FRAME_CNNS = {
    "cnn_2d": cnn_2d,
    "efficientnet_lite0": efficientnet_lite0,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet50": resnet50,
}


class CNNLSTM(nnx.Module):
    """Classifies a clip by the LSTM's hidden state after its last frame.

    Call with `[B, T, H, W, 3]` float, preprocessed as the frame CNN expects; returns logits `[B, num_classes]`.
    """

    def __init__(
        self,
        frame_cnn: CNN2D | EfficientNetLite0 | MobileNetV2 | ResNet,
        hidden_features: int,
        num_classes: int,
        dropout: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.frame_cnn = frame_cnn
        self.sequence = LSTM(frame_cnn.frame_feature_size, hidden_features, num_classes, dropout, rngs=rngs)

    def features(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch hidden"]:
        """The LSTM's last hidden state `[B, hidden_features]`."""
        return self.sequence.features(self.frame_cnn.frame_features(x))

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch classes"]:
        return self.sequence(self.frame_cnn.frame_features(x))


@register_model
def cnn_lstm(
    *,
    num_classes: int = 400,
    frame_cnn: str = "efficientnet_lite0",
    hidden_features: int = 512,
    dropout: float = 0.5,
    rngs: nnx.Rngs,
) -> CNNLSTM:
    """A frame CNN, one of `FRAME_CNNS`, under an LSTM; the default classes are Kinetics-400's."""
    if frame_cnn not in FRAME_CNNS:
        raise unknown("frame CNN", frame_cnn, FRAME_CNNS)
    trunk = FRAME_CNNS[frame_cnn](num_classes=None, rngs=rngs)
    return CNNLSTM(trunk, hidden_features, num_classes, dropout, rngs=rngs)
