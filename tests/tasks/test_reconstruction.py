"""Reconstruction, against a toy autoencoder whose errors and divergences are told by hand or by integration."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from scipy import integrate, stats

from tests import fresh
from zoo.tasks.reconstruction import Reconstruction


class Shifts:
    """Latents of mean `mean` and deviation `deviation` everywhere; draws each as a grey of itself plus a half."""

    def __init__(self, mean: float, deviation: float):
        self.mean, self.deviation = mean, deviation

    def encode(self, x):
        latents = jnp.full(x.shape, self.mean)
        return latents, jnp.full(x.shape, 2 * np.log(self.deviation))

    def decode(self, latents):
        return latents + 0.5


def batch(grey: int) -> dict:
    return {"video": np.full((3, 4, 8, 8, 1), grey, np.uint8)}


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.2), (-1.5, 2.0)])
def test_figures_are_those_of_the_distributions(mean, deviation):
    told = Reconstruction(price=0.1).evaluate(Shifts(mean, deviation), batch(255), jax.random.key(0))
    latent, standard = stats.norm(mean, deviation), stats.norm()
    divergence, _ = integrate.quad(
        lambda z: latent.pdf(z) * (latent.logpdf(z) - standard.logpdf(z)), mean - 9 * deviation, mean + 9 * deviation
    )
    np.testing.assert_allclose(told["divergence"], divergence, atol=1e-5)
    np.testing.assert_allclose(told["squared_error"], (mean + 0.5 - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(told["mean_square"], mean**2, rtol=1e-5)
    np.testing.assert_allclose(told["loss"], told["squared_error"] + 0.1 * told["divergence"], rtol=1e-6)


def test_in_training_latents_are_drawn():
    loss, told = Reconstruction(price=0.0).loss(Shifts(0.5, 0.3), batch(255), jax.random.key(0))
    assert loss == told["squared_error"]
    assert told["squared_error"] == pytest.approx(0.3**2, rel=0.1), "of pixels that are what they should be on average"


@pytest.mark.parametrize("coding", [True, False])
def test_what_learns_to_code_and_what_to_draw(coding):
    model = fresh.network("video_vae", patch=2, widths=(8, 8))
    clips = {"video": np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 1), np.uint8)}
    gradients = nnx.grad(lambda model: Reconstruction(coding=coding).loss(model, clips, jax.random.key(0))[0])(model)
    sums = {part: optax.tree.norm(gradients[part]) for part in ("down", "to_latents", "from_latents", "up", "head")}
    assert {part for part, size in sums.items() if size == 0} == (set() if coding else {"down", "to_latents"})


def test_a_network_is_shown_beside_what_it_was_given(tmp_path):
    rng = np.random.default_rng(0)
    clips = [{"video": rng.integers(0, 256, (2, 8, 8, 1), np.uint8)} for _ in range(3)]
    task, _, _ = Reconstruction(shown=2).prepared(clips, clips)
    model = fresh.network("video_vae", patch=2, widths=(8, 8))
    (path,) = task.show(model, tmp_path, 7, jax.random.key(0))
    assert path == tmp_path / "reconstructions-000007.png"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    made = np.asarray(model(jnp.asarray(clips[0]["video"][None] / 127.5 - 1, jnp.float32)))[0, 0, :, :, 0]
    np.testing.assert_array_equal(pixels[:8, :8], clips[0]["video"][0, :, :, 0])
    np.testing.assert_allclose(pixels[9:17, :8], (np.clip(made, -1, 1) + 1) * 127.5, atol=0.6)
