"""Figures of predicted frames, against scikit-image (golden) and loops over pixels."""

from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_frames import frames
from zoo.metrics.frames import FIGURES, figures, gradient_difference, mae, mse, psnr, ssim

GOLDEN = Path(__file__).parent.parent / "golden" / "frames.npz"


@pytest.mark.parametrize("name", ["mse", "ssim", "ssim_range2", "psnr"])
def test_as_scikit_image(name):
    prediction, truth = (array.astype(np.float32) for array in frames())
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(FIGURES[name](prediction, truth), golden[name], rtol=1e-4)


def test_the_range_of_the_literature_flatters():
    with np.load(GOLDEN) as golden:
        assert (golden["ssim_range2"] > golden["ssim"]).all()


def test_sums_over_pixels_by_hand():
    prediction, truth = frames()
    for place in np.ndindex(2, 3):
        a, b = prediction[place], truth[place]
        absolute = steepness = 0.0
        for y, x, c in np.ndindex(a.shape):
            absolute += abs(a[y, x, c] - b[y, x, c])
            if y:
                steepness += abs(abs(a[y, x, c] - a[y - 1, x, c]) - abs(b[y, x, c] - b[y - 1, x, c]))
            if x:
                steepness += abs(abs(a[y, x, c] - a[y, x - 1, c]) - abs(b[y, x, c] - b[y, x - 1, c]))
        assert mae(prediction, truth)[place] == pytest.approx(absolute, rel=1e-5)
        assert gradient_difference(prediction, truth)[place] == pytest.approx(steepness, rel=1e-5)


def test_a_frame_and_itself():
    _, truth = frames()
    assert (mse(truth, truth) == 0).all()
    assert np.isinf(psnr(truth, truth)).all()
    np.testing.assert_allclose(ssim(truth, truth), 1, atol=1e-5)


def test_errors_count_what_leaves_the_range_and_the_others_see_it_cut_off():
    prediction, truth = frames()
    told = figures(prediction * 3 - 1, truth)
    assert set(told) == set(FIGURES)
    for name, values in told.items():
        seen = prediction * 3 - 1 if name in ("mse", "mae") else (prediction * 3 - 1).clip(0, 1)
        np.testing.assert_allclose(values, FIGURES[name](seen, truth), rtol=1e-5)
