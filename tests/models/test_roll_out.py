"""Networks that predict frames: against PyTorch (golden), published sizes, and what any horizon and stream must be."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.golden import make_prediction as golden
from zoo import kernels, registry
from zoo.errors import UserError
from zoo.models.roll_out import RecurrentPredictor, from_patches, to_patches
from zoo.models.simvp import Depthwise

GOLDEN = Path(__file__).parent.parent / "golden" / "prediction.npz"
NETWORKS = sorted(golden.OPTIONS)
RECURRENT = ("convlstm", "predrnn_pp")


@pytest.fixture(autouse=True)
def plain_kernels():
    """Plain lax, which compiles several times as fast; the other forms have tests of their own."""
    with kernels.prefer("xla"):
        yield


def network(name: str, dtype=np.float32):
    """A small one, in evaluation mode, with the golden's weights."""
    model = registry.create(name, **golden.OPTIONS[name])
    model.eval()
    drawn = golden.weights(name)
    places = {
        ".".join(map(str, path)): value for path, value in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    }
    assert places.keys() == drawn.keys()
    for path, variable in places.items():
        assert variable.shape == drawn[path].shape, path
        variable.set_value(jnp.asarray(drawn[path], dtype))
    return model


def video(dtype=np.float32) -> np.ndarray:
    return next(golden.videos(1)).astype(dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_as_in_pytorch(name):
    with np.load(GOLDEN) as arrays:
        expected = arrays[name]
    with jax.enable_x64(True):
        graph, weights = nnx.split(network(name, np.float64))
        found = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x, expected.shape[1]))(weights, video(np.float64))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_a_convlstm_learns_as_in_pytorch():
    """The same weights, batches and scheduled sampling: the same loss at each of 200 steps of Adam, in float64."""
    with np.load(GOLDEN) as arrays:
        expected = arrays["learning"]
    with jax.enable_x64(True):
        graph, params = nnx.split(network("convlstm", np.float64), nnx.Param)
        adam = optax.adam(golden.RATE)

        def step(carry, of_step):
            params, state = carry
            video, given = of_step

            def loss(params):
                told = nnx.merge(graph, params).follow(video, golden.CONTEXT, given)
                return jnp.square(told - video[:, 1:]).mean()

            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = adam.update(gradients, state)
            return (optax.apply_updates(params, updates), state), value

        data = np.stack(list(golden.videos(golden.STEPS))), np.stack(list(golden.given(golden.STEPS)))
        found = jax.jit(lambda params: jax.lax.scan(step, (params, adam.init(params)), data)[1])(params)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert expected[-20:].mean() < 0.5 * expected[:20].mean(), "it does learn"


def count(name: str) -> int:
    model = nnx.eval_shape(lambda: registry.create(name))
    return sum(value.size for value in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_published_sizes():
    """In millions, of OpenSTL's table of Moving MNIST; its recurrent cells hold convolutions that are never called."""
    never_called = 4 * 25 * (2 * 128) * 128  # `conv_o` of each layer
    assert (count("simvp") / 1e6, count("tau") / 1e6) == (
        pytest.approx(46.77, abs=5e-3),
        pytest.approx(44.66, abs=5e-3),
    )
    assert (count("predrnn_pp") + never_called) / 1e6 == pytest.approx(38.58, abs=5e-3)
    also_never_called, biases = 4 * (2 * 128) * 128, 4 * 4 * 128 + 16
    assert (count("convlstm") - biases + never_called + also_never_called) / 1e6 == pytest.approx(15.08, abs=5e-3)


def test_patches_there_and_back():
    frames = np.random.default_rng(0).uniform(size=(2, 3, 6, 4, 3)).astype(np.float32)
    patches = to_patches(frames, 2)
    assert patches.shape == (2, 3, 3, 2, 12)
    np.testing.assert_array_equal(patches[1, 2, 1, 1].reshape(2, 2, 3), frames[1, 2, 2:4, 2:4])
    np.testing.assert_array_equal(from_patches(patches, 2), frames)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_stream_goes_on_where_it_stopped(name):
    model, frames = network(name), video()
    whole, end = model.read(frames)
    state, told = None, []
    for piece in np.split(frames, [1, 4], axis=1):
        after, state = model.read(piece, state)
        told.append(after)
    np.testing.assert_allclose(np.concatenate(told, axis=1), whole, atol=1e-5)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5), state, end)


def test_layer_by_layer_is_step_by_step():
    model = network("convlstm")
    patches = to_patches(video(), model.patch)
    start = model.initial_state(patches[:, 0])
    ours, theirs = model.steps(patches, start), RecurrentPredictor.steps(model, patches, start)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("name", RECURRENT)
def test_taught_with_every_frame_it_only_reads(name):
    model, frames = network(name), video()
    told = model.follow(frames, 2, np.ones((2, 3), bool))
    np.testing.assert_allclose(told, model.read(frames[:, :-1])[0], atol=1e-5)
    alone = model.follow(frames, 2, np.zeros((2, 3), bool))
    np.testing.assert_allclose(alone[:, 1:], model(frames[:, :2], 4), atol=1e-5)
    assert np.abs(alone - told)[:, 2:].max() > 1e-3


@pytest.mark.parametrize("name", ["convlstm", "simvp"])
def test_a_longer_horizon_begins_like_a_shorter_one(name):
    model, frames = network(name), video()
    longer = model(frames, 8)
    assert longer.shape == (2, 8, 8, 8, 1)
    np.testing.assert_allclose(longer[:, :2], model(frames, 2), atol=1e-5)


def test_beyond_its_window_simvp_sees_its_own():
    model, frames = network("simvp"), video()
    first = model(frames, 3)
    np.testing.assert_allclose(model(frames, 6)[:, 3:], model(first, 3), atol=1e-5)
    np.testing.assert_allclose(model.follow(frames, 3, np.zeros((2, 2), bool)), model(frames[:, :3], 3), atol=1e-6)


def test_interleaved_grids_are_a_dilated_convolution():
    conv = Depthwise(3, 7, 3, rngs=nnx.Rngs(0))
    conv.bias.set_value(jnp.arange(3.0))
    x = jax.random.normal(jax.random.key(1), (2, 16, 11, 3))
    expected = jax.lax.conv_general_dilated(
        x,
        conv.conv.kernel[...],
        (1, 1),
        [(9, 9), (9, 9)],
        rhs_dilation=(3, 3),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(conv(x), expected + jnp.arange(3.0), atol=1e-5)


def test_what_does_not_fit_is_told():
    convlstm, simvp = (nnx.eval_shape(lambda name=name: registry.create(name)) for name in ("convlstm", "simvp"))
    with pytest.raises(UserError, match="1 frames are not enough to go on from; give 2 or more"):
        convlstm(np.zeros((1, 1, 64, 64, 1)))
    with pytest.raises(UserError, match="frames of 66x64 do not divide by 4; resize or crop them, say to 64x64"):
        convlstm(np.zeros((1, 10, 66, 64, 1)))
    with pytest.raises(UserError, match="9 frames are not enough to go on from; give 10 or more"):
        simvp(np.zeros((1, 9, 64, 64, 1)))
    with pytest.raises(UserError, match="frames of 64x50 do not divide by 4; resize or crop them, say to 64x48"):
        simvp(np.zeros((1, 12, 64, 50, 1)))
