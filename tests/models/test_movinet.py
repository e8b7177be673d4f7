"""MoViNet: the published shape of every layer, and streams that know what a whole clip knows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import fresh, tiny
from zoo import hub, kernels
from zoo.data.transforms import Preprocessing
from zoo.registry import WeightSource
from zoo.stream import Stream

# (side, features) behind the stem and each level, for the published clips: the authors' block specifications, with
# TensorFlow's rule that a stride of 2 makes ceil(side / 2).
PLACES = {
    "movinet_a0": [(86, 8), (43, 8), (22, 32), (11, 56), (11, 56), (6, 104), (6, 480)],
    "movinet_a1": [(86, 16), (43, 16), (22, 40), (11, 64), (11, 64), (6, 136), (6, 600)],
    "movinet_a2": [(112, 16), (56, 16), (28, 40), (14, 72), (14, 72), (7, 144), (7, 640)],
}
BLOCKS = {"movinet_a0": (1, 3, 3, 4, 4), "movinet_a1": (2, 4, 5, 6, 7), "movinet_a2": (3, 5, 5, 6, 7)}


@pytest.mark.parametrize("arch", PLACES)
def test_each_layer_has_the_published_shape(arch: str):
    size = {"movinet_a2": 224}.get(arch, 172)

    def layers(model: Any, x: jax.Array) -> list[jax.Array]:
        given = [model.stem(x)]
        blocks = iter(model.blocks)
        for depth in BLOCKS[arch]:
            x = given[-1]
            for _ in range(depth):
                x = next(blocks)(x)
            given.append(x)
        assert next(blocks, None) is None
        return [*given, model.project(given[-1])]

    model = nnx.eval_shape(lambda: zoo.create(arch))
    model.eval()
    with kernels.prefer("xla"):
        found = nnx.eval_shape(layers, model, jax.ShapeDtypeStruct((1, 50, size, size, 3), jnp.float32))
    assert [x.shape for x in found] == [(1, 50, side, side, features) for side, features in PLACES[arch]]
    assert model.head.kernel.shape == (PLACES[arch][-1][1], 2048)
    assert model.logits.kernel.shape == (2048, 600)


def test_a_stream_keeps_what_the_published_buffers_keep():
    """Steps that a filter reaches back, behind its filter in space; A0's (5,3,3) and (3,3,3) blocks have one."""
    model = nnx.eval_shape(lambda: zoo.create("movinet_a0", stream=True))
    state = jax.eval_shape(lambda: model.initial_state(2, jnp.float32))
    kept = [block["before"].shape for block in state["blocks"] if "before" in block]
    threes = [(2, 2, 22, 22, 80)] * 3
    fives = [(2, 4, 11, 11, 184), (2, 2, 11, 11, 112), (2, 2, 11, 11, 184)]
    again = [(2, 4, 11, 11, 184), *[(2, 2, 11, 11, 184)] * 3]
    assert kept == [*threes, *fives, *again, (2, 4, 6, 6, 384)]


@pytest.fixture(scope="module")
def streaming() -> nnx.Module:
    """A0 with residual branches that count; fresh ones are scaled by zero."""
    model = fresh.network("movinet_a0", stream=True, num_classes=7)
    for index, block in enumerate(model.blocks):
        block.scale[...] = jnp.float32(0.5 + 0.1 * index)
        block.depthwise.norm.bias[...] = jax.random.normal(jax.random.key(index), block.depthwise.norm.bias.shape)
    model.eval()
    return model


@nnx.jit
def along(model: Any, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    with kernels.prefer("xla"):
        return model.along(x, state)


def test_a_stream_gives_the_logits_of_the_whole_clip(streaming: Any):
    x = jax.random.uniform(jax.random.key(0), (2, 6, 32, 32, 3))
    start = streaming.initial_state(2, jnp.float32, 32)
    whole, after_all = along(streaming, x, start)
    state, steps = start, []
    for frame in range(6):
        logits, state = along(streaming, x[:, frame : frame + 1], state)
        steps.append(logits[:, 0])
    scale = np.abs(whole).max()
    np.testing.assert_allclose(np.stack(steps, 1), whole, atol=1e-5 * scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6), state, after_all)
    # They differ from frame to frame by more than rounding: the stream is not a picture that stands still.
    assert np.abs(np.diff(whole, axis=1)).max() > 1e-3 * scale
    with kernels.prefer("xla"):
        np.testing.assert_allclose(nnx.jit(lambda model, x: model(x))(streaming, x), whole[:, -1], atol=1e-5 * scale)


def test_no_frame_s_future_is_seen(streaming: Any):
    x = jax.random.uniform(jax.random.key(1), (2, 6, 32, 32, 3))
    start = streaming.initial_state(2, jnp.float32, 32)
    before, _ = along(streaming, x, start)
    changed, _ = along(streaming, x.at[:, 4:].add(0.5), start)
    np.testing.assert_array_equal(before[:, :4], changed[:, :4])
    assert np.abs(before[:, 4:] - changed[:, 4:]).max() > 0


def test_the_zoo_s_stream_goes_through_it(streaming: Any):
    labels = tuple("abcdefg")
    preprocessing = {**tiny.PREPROCESSING, "resize_short": 32, "crop": 32, "mean": 0.0, "std": 255.0}
    card = tiny.card(WeightSource("url", {"a": ""}), arch="movinet_a0", labels=labels, preprocessing=preprocessing)
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    streaming.size = 32
    with kernels.prefer("xla"), Stream(card, streaming, Preprocessing(**preprocessing), None) as stream:
        answers = [stream.push(frame) for frame in frames]
    start = streaming.initial_state(1, jnp.float32)
    whole, _ = along(streaming, jnp.asarray(frames[None] / np.float32(255)), start)
    np.testing.assert_allclose(stream.logits, whole[:, -1], atol=1e-5 * np.abs(whole).max())
    assert answers[-1][0][0] == labels[int(whole[0, -1].argmax())]


def test_the_base_form_does_not_stream():
    model = nnx.eval_shape(lambda: zoo.create("movinet_a0"))
    assert not model.is_causal
    with pytest.raises(ValueError, match="make the network with stream=True"):
        model.along(jnp.zeros((1, 2, 32, 32, 3)))
    assert hub.weights_of(model).keys() == {"stem", "blocks", "project", "head", "logits"}
