"""MoViNet A0, A1 and A2: small networks for video, found by search, in a form for clips and one for streams.

Kondratyuk et al. 2021, "MoViNets: Mobile Video Networks for Efficient Video Recognition", arXiv:2103.11511, as its
authors publish them in TensorFlow's Model Garden. The base form has 3D filters. The stream form splits each into one in
space and one in time that sees no frame to come, averages over what was seen so far, and takes hard swishes: it gives
a clip the same logits whether it comes whole or frame by frame.

The tests hold it, layer by layer and on drawn weights, to MoViNet-pytorch (github.com/Atze00/MoViNet-pytorch), whose
own tests compare it with the authors' networks on TF Hub; to the original's number of parameters, to the shape of every
layer, and to the published operations (A0 and A1 within 3%; for A2 the authors' table has 14% fewer than their
specification gives). No published weights have been through it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from zoo.models.layers import Conv, DepthwiseConv, avg_pool
from zoo.registry import register_model

HEAD_FEATURES = 2048
# The original's training: how often the classifier's input and, rising to the last block, a residual branch is dropped.
DROPOUT, BRANCH_DROPOUT = 0.5, 0.2

type Window = tuple[int, int, int]
type State = dict[str, Any]


class Level(NamedTuple):
    """Features of a level, and of each of its blocks the widened features and the window; the first has `stride`."""

    features: int
    expansions: tuple[int, ...]
    windows: tuple[Window, ...]
    stride: int = 2


class Variant(NamedTuple):
    """Features of the stem, the levels, features before the last pooling, and the side of the published clips."""

    stem: int
    levels: tuple[Level, ...]
    project: int
    size: int


_13, _15, _33, _53 = (1, 3, 3), (1, 5, 5), (3, 3, 3), (5, 3, 3)

A0 = Variant(
    8,
    (
        Level(8, (24,), (_15,)),
        Level(32, (80, 80, 80), (_33,) * 3),
        Level(56, (184, 112, 184), (_53, _33, _33)),
        Level(56, (184,) * 4, (_53, _33, _33, _33), 1),
        Level(104, (384, 280, 280, 344), (_53, _15, _15, _15)),
    ),
    480,
    172,
)
A1 = Variant(
    16,
    (
        Level(16, (40, 40), (_15, _33)),
        Level(40, (96, 120, 96, 96), (_33,) * 4),
        Level(64, (216, 128, 216, 168, 216), (_53, _33, _33, _33, _33)),
        Level(64, (216, 216, 216, 128, 128, 216), (_53, _33, _33, _33, _15, _33), 1),
        Level(136, (456, 360, 360, 360, 456, 456, 544), (_53, _15, _15, _15, _15, _33, _13)),
    ),
    600,
    172,
)
A2 = Variant(
    16,
    (
        Level(16, (40, 40, 64), (_15, _33, _33)),
        Level(40, (96, 120, 96, 96, 120), (_33,) * 5),
        Level(72, (240, 160, 240, 192, 240), (_53, _33, _33, _33, _33)),
        Level(72, (240, 240, 240, 240, 144, 240), (_53, _33, _33, _33, _15, _33), 1),
        Level(144, (480, 384, 384, 480, 480, 480, 576), (_53, _15, _15, _15, _15, _33, _13)),
    ),
    640,
    224,
)


class Unit(nnx.Module):
    """A convolution without bias, then batch normalisation: `[B, T, H, W, C]` to `[B, T', H', W', F]`."""

    def __init__(self, conv: Conv | DepthwiseConv, features: int, *, rngs: nnx.Rngs):
        self.conv = conv
        self.norm = nnx.BatchNorm(features, epsilon=1e-3, momentum=0.99, rngs=rngs)  # both the original's

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        # The statistics are float32 and would lift a bfloat16 input to float32 for the rest of the network.
        return self.norm(self.conv(x)).astype(x.dtype)


def pointwise(in_features: int, features: int, *, rngs: nnx.Rngs) -> Unit:
    """A 1x1x1 unit."""
    return Unit(Conv(in_features, features, (1, 1, 1), use_bias=False, rngs=rngs), features, rngs=rngs)


def so_far(x: jax.Array, total: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean over all steps up to each one, and the sum over all of them.

    Args:
      x: `[B, T, C]`.
      total: float32 `[B, C]`, the sum over the steps before.
      seen: int `[B]`, how many those were.
    """
    sums = total[:, None] + jnp.cumsum(x.astype(jnp.float32), axis=1)
    counts = seen[:, None] + jnp.arange(1, x.shape[1] + 1)
    return (sums / counts[..., None]).astype(x.dtype), sums[:, -1]


def eighths(features: float) -> int:
    """The nearest multiple of 8, from 8 up, that is not below nine tenths."""
    rounded = max(8, int(features + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * features else rounded


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Keras 2's, steeper than nnx's; it is what MoViNet-pytorch needs to equal the published networks."""
    return jnp.clip(0.2 * x + 0.5, 0, 1)


class Excitation(nnx.Module):
    """Each channel times a number that depends on the means of all (arXiv:1709.01507).

    In a stream those are the means over the frame and over all frames so far.
    """

    def __init__(self, features: int, *, stream: bool, rngs: nnx.Rngs):
        seen = 2 * features if stream else features
        between = eighths(seen / 4)
        self.squeeze = nnx.Linear(seen, between, rngs=rngs)
        self.excite = nnx.Linear(between, features, rngs=rngs)

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        means = x.mean(axis=(1, 2, 3))
        return x * jax.nn.sigmoid(self.excite(nnx.silu(self.squeeze(means))))[:, None, None, None]

    def along(self, x: jax.Array, total: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`x` excited by the frames so far, and the sum of their means; arguments as for `so_far`."""
        means = x.mean(axis=(2, 3))
        averages, total = so_far(means, total, seen)
        y = nnx.hard_swish(self.squeeze(jnp.concatenate([averages, means], axis=-1)))
        return x * hard_sigmoid(self.excite(y))[:, :, None, None], total


class Block(nnx.Module):
    """Widen, filter each channel, excite, narrow, and add: `[B, T, H, W, C]` to `[B, T, H / stride, W / stride, F]`.

    The sum begins as the shortcut alone: what is added is scaled by a number that starts from zero (arXiv:2003.04887).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        wide: int,
        window: Window,
        stride: int,
        *,
        stream: bool,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        in_time = window[0] if stream else 1
        in_space = (1, *window[1:]) if stream else window
        self.act: Callable[[jax.Array], jax.Array] = nnx.hard_swish if stream else nnx.silu
        self.expand = pointwise(in_features, wide, rngs=rngs)
        self.depthwise = Unit(DepthwiseConv(wide, in_space, strides=(1, stride, stride), rngs=rngs), wide, rngs=rngs)
        # No padding in time: a stream brings the steps before.
        filters = DepthwiseConv(wide, (in_time, 1, 1), padding=((0, 0),) * 3, rngs=rngs) if in_time > 1 else None
        self.time = None if filters is None else Unit(filters, wide, rngs=rngs)
        self.excitation = Excitation(wide, stream=stream, rngs=rngs)
        self.project = pointwise(wide, features, rngs=rngs)
        self.scale = nnx.Param(jnp.zeros(()))
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2, 3, 4), rngs=rngs)
        self.stride = stride
        changes = stride > 1 or in_features != features
        self.shortcut = pointwise(in_features, features, rngs=rngs) if changes else None

    def __call__(self, x: Float[Any, "batch time height width channels"]) -> jax.Array:
        """The base form, whole clips at a time."""
        y = self.act(self.depthwise(self.act(self.expand(x))))
        return self._add(x, self.excitation(y))

    def along(self, x: jax.Array, state: State, seen: jax.Array) -> tuple[jax.Array, State]:
        """The stream form: the next steps of a clip, of which `seen` `[B]` have gone before; and the state after."""
        y = self.act(self.depthwise(self.act(self.expand(x))))
        after = {}
        if self.time is not None:
            reach = self.time.conv.kernel.shape[0] - 1
            y = jnp.concatenate([state["before"], y], axis=1)
            after["before"] = y[:, -reach:]
            y = self.act(self.time(y))
        y, after["total"] = self.excitation.along(y, state["total"], seen)
        return self._add(x, y), after

    def initial_state(self, batch: int, height: int, width: int, dtype: Any) -> State:
        """What `along` starts from, for `height` x `width` places behind the filters in space."""
        wide = self.project.conv.kernel.shape[-2]
        state: State = {"total": jnp.zeros((batch, wide), jnp.float32)}
        if self.time is not None:
            reach = self.time.conv.kernel.shape[0] - 1
            state["before"] = jnp.zeros((batch, reach, height, width, wide), dtype)
        return state

    def _add(self, x: jax.Array, y: jax.Array) -> jax.Array:
        y = self.dropout(self.project(y) * self.scale[...].astype(y.dtype))
        if self.shortcut is None:
            return x + y
        if self.stride > 1:
            x = avg_pool(x, window=(1, 3, 3), strides=(1, self.stride, self.stride), padding="SAME")
        return self.shortcut(x) + y


class MoViNet(nnx.Module):
    """Logits and features of clips `[B, T, H, W, 3]` in [0, 1], in the base or the stream form.

    The published networks saw 50 frames, 5 a second, of 172x172 (A0, A1) or 224x224 (A2).
    """

    window = 1  # frames a step of a stream

    def __init__(self, variant: Variant, num_classes: int | None, *, stream: bool, rngs: nnx.Rngs):
        self.is_causal, self.size = stream, variant.size
        self.act: Callable[[jax.Array], jax.Array] = nnx.hard_swish if stream else nnx.silu
        stem = Conv(3, variant.stem, (1, 3, 3), strides=(1, 2, 2), use_bias=False, rngs=rngs)
        self.stem = Unit(stem, variant.stem, rngs=rngs)
        num_blocks = sum(len(level.windows) for level in variant.levels)
        self.blocks, before = nnx.List([]), variant.stem
        for level in variant.levels:
            for repeat, (wide, window) in enumerate(zip(level.expansions, level.windows, strict=True)):
                block = Block(
                    before,
                    level.features,
                    wide,
                    window,
                    1 if repeat else level.stride,
                    stream=stream,
                    dropout=BRANCH_DROPOUT * (len(self.blocks) + 1) / num_blocks,
                    rngs=rngs,
                )
                self.blocks.append(block)
                before = level.features
        self.project = pointwise(before, variant.project, rngs=rngs)
        self.head = nnx.Linear(variant.project, HEAD_FEATURES, rngs=rngs)
        self.feature_size = HEAD_FEATURES
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.logits = None if num_classes is None else nnx.Linear(HEAD_FEATURES, num_classes, rngs=rngs)

    def initial_state(self, batch: int, dtype: Any, size: int | None = None) -> State:
        """What `along` starts from, for frames of `size` pixels a side, by default the published ones.

        seen `[batch]`: how many frames went before. total `[batch, features]`: the sum of what the last pooling took
        from them. blocks: of each block the sum of the means that it is excited by, and the steps that its filter in
        time reaches back.
        """
        side = -(-(size or self.size) // 2)
        blocks = []
        for block in self.blocks:
            side = -(-side // block.stride)
            blocks.append(block.initial_state(batch, side, side, dtype))
        return {
            "seen": jnp.zeros(batch, jnp.int32),
            "total": jnp.zeros((batch, self.project.conv.kernel.shape[-1]), jnp.float32),
            "blocks": tuple(blocks),
        }

    def _pooled(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """What the stream form's head sees after each frame `[B, T, features]`, and the state after the last."""
        seen, blocks = state["seen"], []
        x = self.act(self.stem(x))
        for block, before in zip(self.blocks, state["blocks"], strict=True):
            x, after = block.along(x, before, seen)
            blocks.append(after)
        means = self.act(self.project(x)).mean(axis=(2, 3))
        averages, total = so_far(means, state["total"], seen)
        return averages, {"seen": seen + x.shape[1], "total": total, "blocks": tuple(blocks)}

    def features(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch 2048"]:
        """`[B, 2048]`: what the classifier sees of a whole clip."""
        if self.is_causal:
            batch, _, height, width, _ = x.shape
            if height != width:
                raise ValueError(f"a stream's frames are square, not {height}x{width}")
            pooled, _ = self._pooled(x, self.initial_state(batch, x.dtype, height))
            return nnx.silu(self.head(pooled[:, -1]))
        x = self.act(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return nnx.silu(self.head(self.act(self.project(x)).mean(axis=(1, 2, 3))))

    def __call__(self, x: Float[Any, "batch time height width 3"]) -> Float[jax.Array, "batch classes"]:
        """Logits `[B, num_classes]` of whole clips."""
        return self._classify(self.features(x))

    def along(
        self, x: Float[Any, "batch time height width 3"], state: State | None = None
    ) -> tuple[Float[jax.Array, "batch time classes"], State]:
        """Logits of all that was seen up to each frame, and the state with which the clip goes on.

        Raises:
          ValueError: this is the base form, whose filters see the frames behind each one.
        """
        if not self.is_causal:
            raise ValueError("the base form sees the whole clip; make the network with stream=True")
        state = self.initial_state(len(x), x.dtype, x.shape[2]) if state is None else state
        pooled, state = self._pooled(x, state)
        return self._classify(nnx.silu(self.head(pooled))), state

    def _classify(self, features: jax.Array) -> jax.Array:
        if self.logits is None:
            raise ValueError("this movinet was made without classes (num_classes=None); call features")
        return self.logits(self.dropout(features))


@register_model
def movinet_a0(*, num_classes: int | None = 600, stream: bool = False, rngs: nnx.Rngs) -> MoViNet:
    """MoViNet-A0 of 3.1M parameters, base or `stream` form; `num_classes` defaults to Kinetics-600."""
    return MoViNet(A0, num_classes, stream=stream, rngs=rngs)


@register_model
def movinet_a1(*, num_classes: int | None = 600, stream: bool = False, rngs: nnx.Rngs) -> MoViNet:
    """MoViNet-A1 of 4.7M parameters, base or `stream` form; `num_classes` defaults to Kinetics-600."""
    return MoViNet(A1, num_classes, stream=stream, rngs=rngs)


@register_model
def movinet_a2(*, num_classes: int | None = 600, stream: bool = False, rngs: nnx.Rngs) -> MoViNet:
    """MoViNet-A2 of 5.2M parameters, base or `stream` form; `num_classes` defaults to Kinetics-600."""
    return MoViNet(A2, num_classes, stream=stream, rngs=rngs)
