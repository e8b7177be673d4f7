"""Flow matching on targets whose optimal denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.errors import UserError
from zoo.tasks.generation import FlowMatching, flow_matching_error, guided, knowing, sample, sampling_times

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
    errors = {
        (sampler, steps): float(jnp.abs(run(gaussian_denoiser, noise, steps, sampler) - exact).max())
        for sampler in ("euler", "heun")
        for steps in (32, 64)
    }
    assert errors["heun", 32] < 0.05
    assert errors["heun", 64] < errors["heun", 32] / 2
    # Of first order: half the step, half the error.
    np.testing.assert_allclose(errors["euler", 64], errors["euler", 32] / 2, rtol=0.2)


def run(denoise, noise, steps, sampler="heun"):
    return sample(denoise, noise, jnp.zeros((len(noise), 1)), sampling_times(steps, 0.0), sampler)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_one_step_is_the_predicted_clean_clip(sampler):
    noise = jax.random.normal(jax.random.key(0), (4, 2, 8, 8, 1))
    clean = gaussian_denoiser(noise, jnp.zeros(4), None)
    np.testing.assert_allclose(run(gaussian_denoiser, noise, 1, sampler), clean, rtol=1e-6)


def test_the_sampler_s_times_have_shifted_log_odds():
    np.testing.assert_allclose(sampling_times(4, 0.0), [0, 0.25, 0.5, 0.75, 1], rtol=1e-6)
    times = np.asarray(sampling_times(5, -2.0))
    odds = np.log(times[1:-1] / (1 - times[1:-1]))
    even = np.arange(1, 5) / 5
    np.testing.assert_allclose(odds, np.log(even / (1 - even)) - 2.0, rtol=1e-5)
    assert (times[0], times[-1]) == (0, 1)


def test_the_sampler_lands_on_two_points():
    noise = jax.random.normal(jax.random.key(1), (4, 2, 8, 8, 1))
    x = run(two_point_denoiser, noise, 64)
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

    def model(z, time, classes, known):
        seen.append(classes)
        return z

    batch = {"video": jnp.zeros((4000, 1, 2, 2, 1), jnp.uint8), "classes": jnp.ones((4000, 10))}
    FlowMatching(clip_shape=(1, 2, 2, 1), drop_classes=0.25).loss(model, batch, jax.random.key(0))
    np.testing.assert_allclose(1 - seen[0].mean(), 0.25, atol=0.03)
    assert set(np.unique(seen[0].sum(-1))) == {0, 10}


def test_half_of_the_clips_that_begin_with_known_frames_go_without_classes():
    seen = []

    def model(z, time, classes, known):
        seen.append((np.asarray(classes).any(1), np.asarray(known).any(1)))
        return z

    batch = {"video": jnp.zeros((4000, 2, 2, 2, 1), jnp.uint8), "classes": jnp.ones((4000, 10))}
    FlowMatching(clip_shape=(2, 2, 2, 1), know_frames=0.5).loss(model, batch, jax.random.key(0))
    ((told, begun),) = seen
    np.testing.assert_allclose([told[begun].mean(), told[~begun].mean()], [0.5, 0.9], atol=0.04)


def test_known_frames_are_given_and_come_back_as_they_are():
    seen = []

    def model(z, time, classes, known):
        seen.append((z, known))
        return z * 0

    frames = jax.random.uniform(jax.random.key(0), (2, 4, 2, 2, 1))
    known = jnp.array([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    noise = jax.random.normal(jax.random.key(1), frames.shape)
    denoise = guided(knowing(model, frames, known), 2.0)
    x = denoise(noise, jnp.zeros(2), jnp.ones((2, 3)))
    z, told = seen[0]
    np.testing.assert_array_equal(told, jnp.concatenate([known, known]))
    np.testing.assert_array_equal(z[0, :2], frames[0, :2])
    np.testing.assert_array_equal(z[2, 2:], noise[0, 2:])
    np.testing.assert_array_equal(x[0, :2], frames[0, :2])
    assert (np.asarray(x[0, 2:]) == 0).all()
    assert (np.asarray(x[1]) == 0).all()


def test_as_many_clips_have_known_frames_as_asked_and_the_loss_is_that_of_the_others():
    seen = []

    def model(z, time, classes, known):
        seen.append(np.asarray(known))
        return z * 0

    # Black is -1: each unknown pixel's squared error is 1, divided by 1 - t.
    batch = {"video": jnp.zeros((4000, 8, 2, 2, 1), jnp.uint8), "classes": jnp.ones((4000, 10))}
    some, none = (
        float(FlowMatching(clip_shape=(8, 2, 2, 1), know_frames=share).loss(model, batch, jax.random.key(0))[0])
        for share in (0.4, 0.0)
    )
    np.testing.assert_allclose(some, none, rtol=1e-5)
    counts = np.bincount(seen[0].sum(1).astype(int), minlength=9) / 4000
    np.testing.assert_allclose(counts, [0.6, 0.1, 0.1, 0.1, 0.1, 0, 0, 0, 0], atol=0.02)
    assert (np.sort(seen[0], axis=1)[:, ::-1] == seen[0]).all(), "the known frames are the first"
    assert not seen[1].any()


def test_a_clip_does_not_depend_on_those_beside_it():
    def model(z, time, classes, known):
        return jnp.tanh(z * 3)

    task = FlowMatching(clip_shape=(2, 4, 4, 1), num_steps=3)
    keys = jax.random.split(jax.random.key(0), 5)
    frames, known = jnp.zeros((5, 2, 4, 4, 1)), jnp.zeros((5, 2))
    together = task.generate(model, jnp.zeros((5, 10)), keys, frames, known)
    alone = task.generate(model, jnp.zeros((1, 10)), keys[3:4], frames[:1], known[:1])
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-5)


class Halves:
    """A network on latents, each twice the mean of two frames, that takes all to be -2 but what is known."""

    def __init__(self):
        self.seen = []

    def encode(self, x):
        return 2 * x.reshape(len(x), -1, 2, *x.shape[2:]).mean(axis=2)

    def decode(self, latents):
        return jnp.repeat(latents, 2, axis=1) / 2

    def __call__(self, z, time, classes, known):
        self.seen.append((z.shape, classes, np.asarray(known)))
        return jnp.full_like(z, -2)


def test_latents_are_denoised_in_place_of_frames():
    """Of black clips, -1, the latents are -2, and there is nothing to learn; those of known frames alone are known."""
    model = Halves()
    task = FlowMatching(clip_shape=(8, 2, 2, 1), know_frames=1.0, num_steps=2, guidance=1.0)
    batch = {"video": np.zeros((500, 8, 2, 2, 1), np.uint8), "classes": np.ones((500, 10), np.float32)}
    assert task.loss(model, batch, jax.random.key(0))[0] == 0
    assert task.evaluate(model, batch, jax.random.key(0))["loss"].max() == 0
    shape, _, known = model.seen[0]
    assert shape == (500, 4, 2, 2, 1)
    assert set(known.sum(axis=1)) == {1, 2}, "up to half of four"

    frames = jnp.arange(8).reshape(1, 8, 1, 1, 1) * jnp.ones((1, 8, 2, 2, 1)) / 10
    keys = jax.random.split(jax.random.key(0), 1)
    with jax.disable_jit():
        clip = task.generate(model, jnp.zeros((1, 10)), keys, frames, jnp.array([[1.0, 1, 1, 0, 0, 0, 0, 0]]))
    np.testing.assert_array_equal(model.seen[-1][2], [[1, 0, 0, 0]])
    np.testing.assert_allclose(clip[0, :, 0, 0, 0], [0.05, 0.05, -1, -1, -1, -1, -1, -1], atol=1e-6)


class Labelled:
    """Clips of three kinds, of which each has one label."""

    num_classes = 3

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"video": np.zeros((2, 4, 4, 3), np.uint8), "label": np.asarray(index % 3, np.int32)}


def test_labels_serve_as_classes():
    task, train, _ = FlowMatching(clip_shape=(8, 32, 32, 1), drop_classes=0.0).prepared(Labelled(), Labelled())
    assert (task.clip_shape, task.num_classes, task.shown) == ((2, 4, 4, 3), 3, ((0,), (1,), (2,), (0, 1)))
    model = Halves()
    batch = {name: np.stack([train[index][name] for index in range(4)]) for name in ("video", "label")}
    task.loss(model, batch, jax.random.key(0))
    np.testing.assert_array_equal(model.seen[0][1], np.eye(3)[[0, 1, 2, 0]])


def test_what_cannot_be_sampled_is_told():
    with pytest.raises(UserError, match="0 steps make no clip; give 1 or more"):
        FlowMatching(clip_shape=(1, 2, 2, 1), num_steps=0)
    with pytest.raises(UserError, match="no sampler is called 'ddim'; there are euler, heun"):
        FlowMatching(clip_shape=(1, 2, 2, 1), sampler="ddim")
