"""CNN-LSTM: a CNN looks at every frame, or at every few frames, and an LSTM carries what was seen along the clip.

After Donahue et al. 2015, "Long-term Recurrent Convolutional Networks", arXiv:1411.4389.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.cnn_2d import cnn_2d
from zoo.models.efficientnet_lite import efficientnet_lite0
from zoo.models.i3d import i3d
from zoo.models.inception import inception_v1
from zoo.models.mobilenet_v2 import mobilenet_v2
from zoo.models.recurrent import SequenceClassifier
from zoo.models.resnet import resnet18, resnet50
from zoo.models.resnet_3d import mc3_18, r2plus1d_18, r3d_18
from zoo.registry import register_model, unknown

FRAME_CNNS: Mapping[str, Callable[..., Any]] = {
    "cnn_2d": cnn_2d,
    "efficientnet_lite0": efficientnet_lite0,
    "inception_v1": inception_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet50": resnet50,
}
"""Each, made with num_classes=None, has `frame_features` of `[..., H, W, C]` and their `frame_feature_size`."""

CLIP_CNNS: Mapping[str, Callable[..., Any]] = {
    "i3d": i3d,
    "mc3_18": mc3_18,
    "r2plus1d_18": r2plus1d_18,
    "r3d_18": r3d_18,
}
"""Each, made with num_classes=None, has `features` of `[B, T, H, W, 3]` and their `feature_size`."""


class CNNLSTM(nnx.Module):
    """Classifies a clip by what its recurrent layers know after the last frame.

    Call with `[B, T, H, W, 3]` float, preprocessed as the CNN expects; returns logits `[B, num_classes]`. A CNN of the
    3D kind sees `window` frames at a time, side by side and not overlapping; the last frame is repeated to fill up.

    Attributes:
      window: frames in a step of the recurrent layers.
    """

    def __init__(self, cnn: nnx.Module, window: int, sequence: SequenceClassifier):
        self.cnn, self.window, self.sequence = cnn, window, sequence

    def steps(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch steps features"]:
        """The CNN's features of every frame, or of every `window` frames."""
        cnn: Any = self.cnn
        if self.window == 1:
            return cnn.frame_features(x)
        short = -x.shape[1] % self.window
        x = jnp.concatenate([x, *[x[:, -1:]] * short], axis=1)
        windows = x.reshape(-1, self.window, *x.shape[2:])
        return cnn.features(windows).reshape(len(x), -1, cnn.feature_size)

    def features(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch features"]:
        """What the classifier sees."""
        return self.sequence.features(self.steps(x))

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> Float[jax.Array, "batch classes"]:
        return self.sequence(self.steps(x))

    @property
    def is_causal(self) -> bool:
        """Whether there is an answer before the end, which is what a stream needs."""
        return self.sequence.recurrent.is_causal

    def initial_state(self, batch: int, dtype: Any) -> Any:
        """What `along` starts from."""
        return self.sequence.initial_state(batch, dtype)

    def along(
        self, x: Float[Any, "batch time height width channels"], state: Any = None
    ) -> tuple[Float[jax.Array, "batch steps classes"], Any]:
        """Logits of all that was seen up to each step, and the state with which the next frames go on.

        The last are those of the call. All but the last piece of a clip have a multiple of `window` frames.

        Raises:
          ValueError: the recurrent layers are bidirectional.
        """
        return self.sequence.along(self.steps(x), state)


@register_model
def cnn_lstm(
    *,
    num_classes: int = 400,
    frame_cnn: str = "efficientnet_lite0",
    frame_cnn_options: Mapping[str, Any] | None = None,
    window: int = 16,
    hidden_features: int = 512,
    cell: str = "lstm",
    num_layers: int = 1,
    bidirectional: bool = False,
    readout: str = "last",
    dropout: float = 0.5,
    rngs: nnx.Rngs,
) -> CNNLSTM:
    """A CNN, one of `FRAME_CNNS` or `CLIP_CNNS`, under an LSTM; the default classes are Kinetics-400's.

    Args:
      frame_cnn_options: what else the CNN is made with.
      window: frames that a CNN of `CLIP_CNNS` sees at a time; those of `FRAME_CNNS` see one.
      cell: "lstm" or "gru".
      num_layers: of the recurrent part; with 0 the read-out is of the CNN's own features.
      readout: "last", "mean" or "attention": what the classifier sees of the steps so far.
    """
    known = {**FRAME_CNNS, **CLIP_CNNS}
    if frame_cnn not in known:
        raise unknown("frame CNN", frame_cnn, known)
    cnn = known[frame_cnn](num_classes=None, rngs=rngs, **(frame_cnn_options or {}))
    is_framewise = frame_cnn in FRAME_CNNS
    sequence = SequenceClassifier(
        cnn.frame_feature_size if is_framewise else cnn.feature_size,
        hidden_features,
        num_classes,
        cell=cell,
        num_layers=num_layers,
        bidirectional=bidirectional,
        readout=readout,
        dropout=dropout,
        rngs=rngs,
    )
    return CNNLSTM(cnn, 1 if is_framewise else window, sequence)
