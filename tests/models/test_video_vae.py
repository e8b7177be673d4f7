"""The autoencoder of clips: what its latents know of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import fresh
from zoo import kernels
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def plain_kernels():
    with kernels.prefer("xla"):
        yield


def coder():
    return fresh.network("video_vae", patch=1, widths=(8, 8, 8), latent_channels=3)


def test_nothing_tells_of_later_frames():
    """By the gradient, which finds every path: latent j of frames up to 2 j + 1, and frame t of latents up to t / 2."""
    model = coder()
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 8, 1))
    mean, log_variance = model.encode(x)
    assert mean.shape == log_variance.shape == (1, 4, 2, 2, 3)
    assert model.decode(mean).shape == x.shape

    def told(x, place, code):
        return jnp.square(code(x)[:, place]).sum()

    reach = nnx.jit(jax.vmap(jax.grad(lambda x, place: told(x, place, lambda x: model.encode(x)[0])), (None, 0)))
    seen = np.abs(reach(x, jnp.arange(4))).max((1, 3, 4, 5)) > 0
    np.testing.assert_array_equal(seen, np.arange(8) <= 2 * np.arange(4)[:, None] + 1)

    reach = nnx.jit(jax.vmap(jax.grad(lambda z, place: told(z, place, model.decode)), (None, 0)))
    seen = np.abs(reach(mean, jnp.arange(8))).max((1, 3, 4, 5)) > 0
    np.testing.assert_array_equal(seen, np.arange(4) <= np.arange(8)[:, None] // 2)


def test_a_beginning_is_coded_as_by_itself():
    model = coder()
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 1))
    np.testing.assert_allclose(model(x)[:, :4], model(x[:, :4]), atol=1e-5)


def test_what_does_not_divide_is_told():
    with pytest.raises(UserError, match="clips of 3 frames do not divide by 2; take 4"):
        coder()(jnp.zeros((1, 3, 8, 8, 1)))
    with pytest.raises(UserError, match="frames of 8x6 do not divide by 4; resize or crop them, say to 8x8"):
        coder()(jnp.zeros((1, 4, 8, 6, 1)))
