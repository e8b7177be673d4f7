"""I3D on windows: I3D itself where it knows what I3D knows, and a stream where it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import fresh
from zoo import kernels
from zoo.kernels import avg_pool


@pytest.fixture(autouse=True)
def plain_lax():
    """It compiles several times as fast; the other forms have tests of their own."""
    with kernels.prefer("xla"):
        yield


@pytest.fixture(scope="module")
def model():
    made = fresh.network("i3d_lstm", num_classes=5, hidden_features=6)
    # Statistics and biases as a training leaves them: with fresh ones padding is zero before and behind every layer.
    random = np.random.default_rng(0)
    for _, leaf in nnx.to_flat_state(nnx.state(made, nnx.BatchStat)):
        leaf.set_value(jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32))
    for name in ("mixed_5b", "mixed_5c"):
        for path, leaf in nnx.to_flat_state(nnx.state(getattr(made.i3d, name), nnx.Param)):
            if path[-1] == "bias":
                leaf.set_value(jnp.asarray(random.normal(size=leaf.shape), jnp.float32))
    made.log_gain.kernel.set_value(jnp.zeros(made.log_gain.kernel.shape))
    made.correction.kernel.set_value(jnp.asarray(random.normal(size=made.correction.kernel.shape), jnp.float32))
    made.eval()
    return made


def test_the_last_blocks_see_what_they_see_in_i3d(model):
    """After one window, two, three and four: with each the past is longer."""
    maps = jax.random.uniform(jax.random.key(0), (2, 4, 2, 2, 2, 832))
    state = model.initial_state(2, jnp.float32, size=64)
    del state["lower"], state["recurrent"]
    upper = nnx.jit(lambda model, state, maps: model._upper(state, maps))
    for index in range(4):
        state, (last, seen) = upper(model, state, maps[:, index])
        whole = maps[:, : index + 1].reshape(2, -1, 2, 2, 832)
        activations = model.i3d.mixed_5c(model.i3d.mixed_5b(whole))
        expected = avg_pool(activations, window=(2, 2, 2), strides=1).mean((1, 2, 3))
        np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4)
        latest = min(4, whole.shape[1])
        np.testing.assert_allclose(last[:, -latest:], activations[:, -latest:], rtol=1e-4, atol=1e-4)


along = nnx.jit(lambda model, x, state, ends: model.along(x, state, ends=ends), static_argnums=3)


def test_a_clip_of_one_window_is_i3d_s(model):
    """Nothing was before it, and zeros are behind it: not only nearly the same."""
    x = jax.random.uniform(jax.random.key(0), (2, 16, 32, 32, 3), minval=-1)
    ours, of_i3d = nnx.jit(lambda model, x: (model(x), model.i3d(x)))(model, x)
    np.testing.assert_allclose(ours, of_i3d, rtol=1e-4, atol=1e-4)
    early, _ = along(model, x, None, False)
    assert np.abs(early[:, -1] - ours).max() > 0.1


@pytest.mark.slow
def test_a_clip_in_pieces_is_the_clip_and_the_past_is_i3d_s(model):
    """A window behind another sees before it what I3D sees there, as far as the guess behind does not reach."""
    x = jax.random.uniform(jax.random.key(0), (1, 40, 32, 32, 3), minval=-1)
    whole, _ = along(model, x, None, True)
    assert whole.shape == (1, 3, 5)
    np.testing.assert_allclose(nnx.jit(lambda model, x: model(x))(model, x), whole[:, -1], atol=1e-5)
    first, state = along(model, x[:, :16], None, False)
    rest, _ = along(model, x[:, 16:], state, True)
    np.testing.assert_allclose(jnp.concatenate([first, rest], axis=1), whole, atol=1e-4)

    still = jnp.repeat(x[:, :16], 3, axis=1)  # frames 16 to 48 do not matter for what follows
    still = still.at[:, 16:].set(x[:, 15:16])
    before = model.initial_state(1, jnp.float32, size=32)["lower"]
    lower = nnx.jit(lambda model, before, x: model._lower(before, x, False)[0])
    maps = lower(model, before, x[:, :16])
    of_i3d = nnx.jit(lambda model, x: model.i3d.lower(x))(model, still)
    # Where the picture stays as it is, the guess is right but for what the layers' own strides shift.
    np.testing.assert_allclose(maps[:, 0], of_i3d[:, 0], atol=0.05 * float(maps.max()))
