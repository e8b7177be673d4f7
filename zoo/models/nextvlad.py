"""NeXtVLAD over the frame features of YouTube-8M: what all frames have that a few learned centres have not.

Lin et al. 2018, "NeXtVLAD: An Efficient Neural Network to Aggregate Frame-level Features for Large-scale Video
Classification", arXiv:1811.05014, at the sizes of its authors' published single model.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from zoo.models.frame_lstm import AUDIO_FEATURES, NUM_LABELS, VISUAL_FEATURES
from zoo.registry import register_model

EXPANSION = 2
GATING_REDUCTION = 8
DROPOUT = 0.5  # of the aggregated features, in training

_INIT = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def _norm(features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs)


class NeXtVLAD(nnx.Module):
    """Aggregates frames `[B, T, C]` to `[B, 2 * C / groups * clusters]`.

    Each frame is widened and cut into groups. A group belongs to each centre by a share, and counts as much as an
    attention says; what is kept of a centre is the sum of all differences from it, normalised.
    """

    def __init__(self, in_features: int, clusters: int, groups: int, *, rngs: nnx.Rngs):
        wide = EXPANSION * in_features
        self.groups, self.clusters = groups, clusters
        self.expand = nnx.Linear(in_features, wide, kernel_init=_INIT, rngs=rngs)
        self.attention = nnx.Linear(wide, groups, kernel_init=_INIT, rngs=rngs)
        self.assign = nnx.Linear(wide, groups * clusters, use_bias=False, kernel_init=_INIT, rngs=rngs)
        self.assign_norm = _norm(groups * clusters, rngs=rngs)
        self.centres = nnx.Param(_INIT(rngs.params(), (wide // groups, clusters), jnp.float32))
        self.features = wide // groups * clusters
        self.norm = _norm(self.features, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time features"], is_there: Float[Any, "batch time"]) -> jax.Array:
        """`is_there` is 1 for a video's own frames, and 0 for those behind them."""
        batch, time, _ = x.shape
        x = self.expand(x)
        attention = jax.nn.sigmoid(self.attention(x)) * is_there[..., None]
        shares = self.assign_norm(self.assign(x)).reshape(batch, time * self.groups, self.clusters)
        shares = (jax.nn.softmax(shares, axis=-1) * attention.reshape(batch, time * self.groups, 1)).astype(x.dtype)
        parts = x.reshape(batch, time * self.groups, -1)
        sums = jnp.einsum("bnf,bnk->bfk", parts, shares) - self.centres[...] * shares.sum(axis=1)[:, None]
        lengths = jax.lax.rsqrt(jnp.maximum((sums**2).sum(axis=1, keepdims=True), 1e-12))
        return self.norm((sums * lengths).reshape(batch, -1)).astype(x.dtype)


class NeXtVLADClassifier(nnx.Module):
    """Logits of YouTube-8M's labels for frame features `[B, T, 1152]`, visual before audio; sigmoids are probabilities.

    Behind the first `num_frames` of a video `[B]` there may be any numbers; without `num_frames` all T are its own. As
    in the original the statistics of training count what is behind as well.
    """

    def __init__(self, clusters: int, groups: int, hidden_features: int, num_classes: int, *, rngs: nnx.Rngs):
        self.visual = NeXtVLAD(VISUAL_FEATURES, clusters, groups, rngs=rngs)
        self.audio = NeXtVLAD(AUDIO_FEATURES, clusters // 2, groups // 2, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)

        def dense(features: int, out: int) -> nnx.Linear:
            return nnx.Linear(features, out, use_bias=False, kernel_init=_INIT, rngs=rngs)

        self.hidden = dense(self.visual.features + self.audio.features, hidden_features)
        self.hidden_norm = _norm(hidden_features, rngs=rngs)
        self.squeeze = dense(hidden_features, hidden_features // GATING_REDUCTION)
        self.squeeze_norm = _norm(hidden_features // GATING_REDUCTION, rngs=rngs)
        self.excite = dense(hidden_features // GATING_REDUCTION, hidden_features)
        self.feature_size = hidden_features
        self.classifier = nnx.Linear(hidden_features, num_classes, rngs=rngs)

    def features(
        self, x: Float[Any, "batch time features"], num_frames: Int[Any, " batch"] | None = None
    ) -> Float[jax.Array, "batch hidden"]:
        """What the classifier sees of a video."""
        batch, time, _ = x.shape
        counts = jnp.full(batch, time) if num_frames is None else jnp.asarray(num_frames)
        is_there = (jnp.arange(time) < counts[:, None]).astype(x.dtype)
        visual, audio = jnp.split(x, [VISUAL_FEATURES], axis=-1)
        both = jnp.concatenate([self.visual(visual, is_there), self.audio(audio, is_there)], axis=-1)
        y = self.hidden_norm(self.hidden(self.dropout(both))).astype(x.dtype)
        gates = nnx.relu(self.squeeze_norm(self.squeeze(y))).astype(x.dtype)
        return y * jax.nn.sigmoid(self.excite(gates))

    def __call__(
        self, x: Float[Any, "batch time features"], num_frames: Int[Any, " batch"] | None = None
    ) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]`."""
        return self.classifier(self.features(x, num_frames))


@register_model
def nextvlad(
    *,
    clusters: int = 128,
    groups: int = 8,
    hidden_features: int = 2048,
    num_classes: int = NUM_LABELS,
    rngs: nnx.Rngs,
) -> NeXtVLADClassifier:
    """NeXtVLAD of 89M parameters at its defaults, 8M of them the classifier's."""
    return NeXtVLADClassifier(clusters, groups, hidden_features, num_classes, rngs=rngs)
