"""Altered copies, each alteration against SciPy or a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, ndimage

from tests.clips import numbered, numbers
from zoo.tasks import copies

CLIP = np.random.default_rng(0).integers(0, 256, (6, 20, 28, 3), np.uint8)
PIXELS = jnp.asarray(CLIP, jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 8)


@pytest.fixture(scope="module")
def made() -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(copies.altered, (None, 0)))(jnp.asarray(CLIP), jax.random.split(KEYS[0], 64)))


def test_a_copy_follows_from_its_key_and_is_a_video(made):
    again = jax.jit(copies.altered)(jnp.asarray(CLIP), jax.random.split(KEYS[0], 64)[5])
    np.testing.assert_allclose(again, made[5], atol=1e-3)
    assert made.shape == (64, *CLIP.shape)
    assert made.min() >= 0
    assert made.max() <= 255
    assert len({copy.tobytes() for copy in made}) > 50


def test_each_alteration_is_left_out_every_other_time(made):
    """Five of them: a copy in 32 is the clip itself."""
    same = (np.abs(made - CLIP).max(axis=(1, 2, 3, 4)) < 1e-3).sum()
    assert 0 < same < 10
    captioned = ((made[..., 0] == 0) & (made.std(axis=-1) == 0)).mean(axis=(1, 2, 3)) > 0.03
    assert 15 < captioned.sum() < 50


@pytest.mark.parametrize("key", KEYS)
def test_pace(key):
    video = numbered(40)
    times = numbers(np.asarray(copies._paced(jnp.asarray(video, jnp.float32), key)))
    assert times == sorted(times)
    assert set(np.diff(times)) <= {0, 1}
    assert 0.6 * 40 - 2 <= times[-1] - times[0] < 40


@pytest.mark.parametrize("key", KEYS[:4])
def test_crop(key):
    found = np.asarray(copies._cropped(PIXELS, key))
    (top, left), (height, width) = np.array([copies._part(each)[::-1] for each in jax.random.split(key)]).T
    assert min(height, width) >= 0.6
    assert max(top + height, left + width) <= 1
    rows, columns = CLIP.shape[1:3]
    places = np.meshgrid(
        (top + height * (np.arange(rows) + 0.5) / rows) * rows - 0.5,
        (left + width * (np.arange(columns) + 0.5) / columns) * columns - 0.5,
        indexing="ij",
    )
    for time in (0, 5):
        for channel in range(3):
            wanted = ndimage.map_coordinates(CLIP[time, :, :, channel].astype(float), places, order=1, mode="nearest")
            np.testing.assert_allclose(found[time, :, :, channel], wanted, atol=0.1)


def test_mirror():
    np.testing.assert_array_equal(np.asarray(copies._mirrored(PIXELS, KEYS[0]))[:, :, ::-1], CLIP)


def test_captions_stand_still_and_leave_the_rest():
    written = 0
    for key in KEYS:
        found = np.asarray(copies._captioned(PIXELS, key))
        bar = (found != CLIP).any(axis=(0, 2, 3))
        assert 1 <= bar.sum() <= 6
        assert bar[0] != bar[-1]
        np.testing.assert_array_equal(found[:, bar], found[:1, bar].repeat(6, axis=0))
        assert set(np.unique(found[:, bar])) <= {0, 255}
        written += (found[:, bar] == 255).any()
    assert written > 2


@pytest.mark.parametrize("key", KEYS[:3])
def test_compression(key):
    step = float(jax.random.uniform(key, minval=8, maxval=64))
    found = np.asarray(copies._compressed(PIXELS, key))
    padded = np.pad(CLIP.astype(float), ((0, 0), (0, 4), (0, 4), (0, 0)), mode="edge")
    for top in range(0, 24, 8):
        for left in range(0, 32, 8):
            block = padded[2, top : top + 8, left : left + 8, 1]
            steps = step * (1 + np.add.outer(np.arange(8), np.arange(8)) / 2)
            block = fft.idctn(np.round(fft.dctn(block, norm="ortho") / steps) * steps, norm="ortho").clip(0, 255)
            there = found[2, top : top + 8, left : left + 8, 1]
            # A wave half way between two steps may go either way.
            assert np.mean(np.abs(there - block[: there.shape[0], : there.shape[1]]) < 0.01) > 0.99
