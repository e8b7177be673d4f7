"""Distances of sets of clips: closed forms, SciPy's matrix root, brute force; and with I3D what noise does to them."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import nnx

from zoo.errors import UserError
from zoo.metrics import fvd
from zoo.metrics.fvd import frechet_distance, kernel_distance


def drawn(seed: int, count: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Points whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ scipy.linalg.sqrtm(covariance).real.T + mean


def test_the_same_set_has_no_distance():
    x = drawn(0, 40, np.arange(5.0), np.diag([1.0, 2, 3, 4, 5]))
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)


def test_a_shifted_mean_is_its_square():
    x = drawn(0, 40, np.zeros(5), np.eye(5))
    assert frechet_distance(x, x + np.array([3, 0, 0, 4, 0])) == pytest.approx(25)


def test_diagonal_covariances_are_told_apart_by_their_deviations():
    first, second = np.array([1.0, 4, 9, 0.25]), np.array([4.0, 4, 1, 2.25])
    x, y = drawn(0, 40, np.zeros(4), np.diag(first)), drawn(1, 60, np.ones(4), np.diag(second))
    expected = 4 + np.square(np.sqrt(first) - np.sqrt(second)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected)


def test_any_covariances_as_with_scipy_s_root():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(70, 6)) @ rng.normal(size=(6, 6))
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(
        first + second - 2 * scipy.linalg.sqrtm(first @ second).real
    )
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)


def test_too_few_clips_are_told_with_the_least_bias():
    """The expected square of the difference of two means of one distribution is its variance over each count."""
    rng = np.random.default_rng(3)
    between = []
    for _ in range(300):
        x, y = rng.normal(size=(10, 20)), rng.normal(size=(10, 20))
        between.append(np.square(x.mean(0) - y.mean(0)).sum())
    with pytest.warns(
        UserWarning, match=r"10 and 10 clips by 20 features is too large, on average by (\d\.\d+)"
    ) as told:
        distance = frechet_distance(x, y)
    named = float(str(told[0].message).partition("on average by ")[2].partition(" ")[0])
    assert named == pytest.approx(np.mean(between), rel=0.25)
    assert distance > named, "two samples of the same distribution"


def test_the_kernel_distance_by_brute_force():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(5, 3)), rng.normal(1, 2, size=(7, 3))

    def mean(a, b, skip):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return np.mean([(sum(a[i] * b[j]) / 3 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_the_kernel_distance_has_no_bias():
    rng = np.random.default_rng(5)
    of_one = [kernel_distance(*rng.normal(size=(2, 6, 4))) for _ in range(400)]
    assert abs(np.mean(of_one)) < 3 * np.std(of_one) / np.sqrt(len(of_one))


def test_clips_that_cannot_be_judged_are_told():
    with pytest.raises(UserError, match=r"clips are uint8 .*, not float64 \[4, 16, 8, 8, 3\]"):
        fvd.features(np.zeros((4, 16, 8, 8, 3)))
    with pytest.raises(UserError, match="4 clips of 8 frames are too few"):
        fvd.features(np.zeros((4, 8, 8, 8, 3), np.uint8))
    broken = np.zeros((3, 2))
    broken[1, 0] = np.nan
    with pytest.raises(UserError, match=r"the features of clip 1 are not numbers; leave out such clips \(1 in all\)"):
        frechet_distance(broken, broken)


def test_the_network_sees_bilinear_pixels_from_minus_one_to_one():
    rng = np.random.default_rng(6)
    clips = rng.integers(0, 256, (1, 2, 6, 8, 1), np.uint8)
    seen = np.asarray(fvd.for_network(clips))
    assert seen.shape == (1, 2, 224, 224, 3)
    for row, column in ((0, 0), (100, 37), (223, 223)):
        y, x = ((place + 0.5) * side / 224 - 0.5 for place, side in ((row, 6), (column, 8)))
        y, x = np.clip(y, 0, 5), np.clip(x, 0, 7)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 5), min(left + 1, 7)
        frame = clips[0, 1, ..., 0] / 127.5 - 1
        upper = frame[top, left] * (1 - x + left) + frame[top, right] * (x - left)
        lower = frame[bottom, left] * (1 - x + left) + frame[bottom, right] * (x - left)
        np.testing.assert_allclose(seen[0, 1, row, column], upper * (1 - y + top) + lower * (y - top), atol=1e-5)


class Means(nnx.Module):
    """Two features of a clip: its mean, and that of its first frame."""

    def __call__(self, x):
        return jnp.stack([x.mean((1, 2, 3, 4)), x[:, 0].mean((1, 2, 3))], axis=1)


def test_features_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    card = SimpleNamespace(source=SimpleNamespace(files={"weights": "0"}))
    monkeypatch.setattr(fvd, "_network", lambda: SimpleNamespace(model=Means(), card=card))
    clips = np.random.default_rng(7).integers(0, 256, (5, 9, 4, 4, 1), np.uint8)
    found = fvd.features(clips, batch_size=2)
    expected = [[clip.mean() / 127.5 - 1, clip[0].mean() / 127.5 - 1] for clip in clips]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float64

    monkeypatch.setattr(fvd, "_logits", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(fvd.features(clips), found)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        fvd.features(clips[::-1])


@pytest.mark.slow
def test_black_against_white_is_what_others_get(tmp_path, monkeypatch):
    """The widely used PyTorch port gives 134.24 for 16 clips of 15x64x64; as all are alike, two do as well."""
    fvd._network()  # its weights lie in the usual cache; its answers should not
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    black = np.zeros((2, 15, 64, 64, 3), np.uint8)
    with pytest.warns(UserWarning, match="2 and 2 clips"):
        distance = fvd.fvd(black, black + 255)
    assert distance == pytest.approx(134.24, rel=0.05)
