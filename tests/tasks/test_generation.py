"""Flow matching on targets whose optimal denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.tasks.generation import FlowMatching, flow_matching_error, guided, sample

MEAN, DEVIATION = 0.7, 0.3


def gaussian_denoiser(z, time, classes):
    """E[x | z] for x from N(MEAN, DEVIATION^2) in every pixel: linear regression of x on z = (1 - t) e + t x."""
    t = time.reshape(-1, 1, 1, 1, 1)
    gain = t * DEVIATION**2 / ((1 - t) ** 2 + t**2 * DEVIATION**2)
    return MEAN + gain * (z - t * MEAN)


def two_point_denoiser(z, time, classes):
    """E[x | z] for x = -1 or 1 alike in every pixel: the log odds of 1 are 2 t z / (1 - t)^2."""
    t = time.reshape(-1, 1, 1, 1, 1)
    return jnp.tanh(t * z / jnp.maximum(1 - t, 1e-6) ** 2)


def test_the_sampler_carries_noise_onto_a_gaussian():
    noise = jax.random.normal(jax.random.key(0), (4, 2, 8, 8, 1))
    # The flow between two Gaussians keeps order, pixel by pixel: it is the affine map.
    exact = MEAN + DEVIATION * noise
    errors = [
        float(jnp.abs(sample(gaussian_denoiser, noise, jnp.zeros((4, 1)), steps) - exact).max()) for steps in (32, 64)
    ]
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 2


def test_the_sampler_lands_on_two_points():
    noise = jax.random.normal(jax.random.key(1), (4, 2, 8, 8, 1))
    x = sample(two_point_denoiser, noise, jnp.zeros((4, 1)), 64)
    np.testing.assert_allclose(jnp.abs(x), 1, atol=1e-3)
    assert (jnp.sign(x) == jnp.sign(noise)).all()


@pytest.mark.parametrize("t", [0.1, 0.5, 0.97])
def test_the_loss_of_the_best_denoiser_is_the_posterior_variance(t):
    keys = jax.random.split(jax.random.key(2), 2)
    shape = (64, 4, 16, 16, 1)
    x = MEAN + DEVIATION * jax.random.normal(keys[0], shape)
    noise = jax.random.normal(keys[1], shape)
    time = jnp.full(64, t)
    variance = DEVIATION**2 * (1 - t) ** 2 / ((1 - t) ** 2 + t**2 * DEVIATION**2)
    loss = flow_matching_error(gaussian_denoiser, x, jnp.zeros((64, 1)), noise, time, weight_limit=0.1).mean()
    np.testing.assert_allclose(loss, variance / max(1 - t, 0.1), rtol=0.02)
    # Any other denoiser does worse.
    worse = flow_matching_error(
        lambda *z: gaussian_denoiser(*z) + 0.05, x, jnp.zeros((64, 1)), noise, time, weight_limit=0.1
    ).mean()
    assert worse > loss


def test_guidance_extrapolates_from_the_free_prediction():
    def denoise(z, time, classes):
        return z * 0 + classes.sum(-1).reshape(-1, 1, 1, 1, 1)

    z, time, classes = jnp.ones((3, 1, 2, 2, 1)), jnp.zeros(3), jnp.eye(3)
    assert (guided(denoise, 1.0)(z, time, classes) == 1).all()
    assert (guided(denoise, 3.0)(z, time, classes) == 3).all()


def test_classes_are_dropped_as_often_as_asked():
    seen = []

    def model(z, time, classes):
        seen.append(classes)
        return z

    batch = {"video": jnp.zeros((4000, 1, 2, 2, 1), jnp.uint8), "classes": jnp.ones((4000, 10))}
    FlowMatching(clip_shape=(1, 2, 2, 1), drop_classes=0.25).loss(model, batch, jax.random.key(0))
    np.testing.assert_allclose(1 - seen[0].mean(), 0.25, atol=0.03)
    assert set(np.unique(seen[0].sum(-1))) == {0, 10}
