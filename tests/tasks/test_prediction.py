"""The prediction task, against a toy network whose errors can be told by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import kernels
from zoo.data import encode
from zoo.errors import UserError
from zoo.tasks.prediction import Prediction, comparison, last_frame, straight_on, to_pixels


@pytest.fixture(autouse=True)
def plain_kernels():
    with kernels.prefer("xla"):
        yield


class Fades:
    """Takes each next frame to be half as bright; remembers what it was given."""

    def __init__(self):
        self.given = []

    def follow(self, video, context, given):
        self.given.append(np.asarray(given))
        return video[:, :-1] / 2

    def __call__(self, context, horizon=10):
        return context[:, -1:] * 0.5 ** jnp.arange(1, horizon + 1).reshape(1, -1, 1, 1, 1)


def videos(brightness) -> np.ndarray:
    """uint8 [2, T, 8, 8, 1], every frame of one brightness."""
    levels = np.stack([brightness, brightness]).astype(np.uint8)
    return np.broadcast_to(levels[..., None, None, None], (*levels.shape, 8, 8, 1))


def test_the_loss_is_the_mean_square_of_all_and_the_figure_the_sum_of_those_ahead():
    task = Prediction(context=2)
    batch = {"video": videos([255, 255, 0, 255]), "progress": jnp.array(0.0)}
    loss, told = task.loss(Fades(), batch, jax.random.key(0))
    assert loss == pytest.approx((0.5**2 + 0.5**2 + 1) / 3)  # after white, white and black
    assert told["mse"] == pytest.approx(64 * (0.5**2 + 1) / 2)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (0.9, 0.0)])
def test_ever_fewer_true_frames_are_given(progress, share):
    model = Fades()
    batch = {"video": np.zeros((500, 12, 2, 2, 1), np.uint8), "progress": jnp.array(progress)}
    _, told = Prediction(context=2, taught=0.5).loss(model, batch, jax.random.key(1))
    assert model.given[0].shape == (500, 9)
    assert model.given[0].mean() == pytest.approx(share, abs=0.03)
    assert told["given"] == pytest.approx(model.given[0].mean())


def test_figures_by_horizon_and_their_means():
    task = Prediction(context=2)
    video = videos([0, 255, 0, 255])
    by_horizon = task.by_horizon(Fades(), video)
    np.testing.assert_allclose(by_horizon["mse"], np.tile([64 * 0.5**2, 64 * 0.75**2], (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(by_horizon["mse_last_frame"], np.tile([64, 0], (2, 1)), atol=1e-5)
    np.testing.assert_allclose(by_horizon["mse_straight_on"], np.tile([64, 0], (2, 1)), atol=1e-5)
    told = task.evaluate(Fades(), {"video": video}, jax.random.key(0))
    assert told["mse"] == pytest.approx(64 * (0.5**2 + 0.75**2) / 2)
    assert told["loss"] == pytest.approx(told["mse"] / 64)


def test_baselines():
    context = np.array([0.2, 0.4, 0.5]).reshape(1, 3, 1, 1, 1)
    np.testing.assert_allclose(np.ravel(last_frame(context, 3)), [0.5] * 3)
    np.testing.assert_allclose(np.ravel(straight_on(context, 7)), [0.6, 0.7, 0.8, 0.9, 1, 1, 1], rtol=1e-6)


def test_a_comparison_has_context_truth_prediction_and_error_of_each_video():
    rng = np.random.default_rng(0)
    context, truth, guess = (rng.integers(0, 256, (2, t, 4, 5, 1), np.uint8) for t in (2, 3, 3))
    seen = comparison(context, truth, guess)
    rows = [seen[row * 5 : row * 5 + 4] for row in range(8)]
    for number in range(2):
        shown = [[row[:, place * 6 : place * 6 + 5] for place in range(3)] for row in rows[4 * number : 4 * number + 4]]
        np.testing.assert_array_equal(shown[0][1:], context[number])
        assert not shown[0][0].any()
        np.testing.assert_array_equal(shown[1], truth[number])
        np.testing.assert_array_equal(shown[2], guess[number])
        np.testing.assert_array_equal(shown[3], np.abs(truth[number].astype(int) - guess[number]))


def test_pixels_are_cut_off_not_wrapped():
    np.testing.assert_array_equal(to_pixels(np.array([-0.5, 0, 0.5, 1, 1.7])), [0, 0, 128, 255, 255])


def test_data_with_nothing_to_predict_are_told():
    with pytest.raises(
        UserError, match="videos of 4 frames leave nothing to predict behind a context of 4; take longer"
    ):
        Prediction(context=4).prepared([], [{"video": video} for video in videos([1, 2, 3, 4])])


def test_strips_are_written(tmp_path, monkeypatch):
    """Of the first held-out videos."""
    held_out = [{"video": video} for video in videos([10, 20, 30, 40])]
    task, _, _ = Prediction(context=2, shown=5).prepared([], held_out)
    assert task.strips.shape == (2, 4, 8, 8, 1)
    written = []
    monkeypatch.setattr("zoo.tasks.prediction.predicted", lambda model, context, horizon: model(context, horizon))
    monkeypatch.setattr(encode, "write_picture", lambda path, pixels, **_: written.append(pixels) or path)
    paths = task.show(Fades(), tmp_path, 7, jax.random.key(0))
    assert [path.name for path in paths] == ["strips-000007.png"]
    assert written[0][2 * 9 + 1, 1, 0] == 10, "20 after a half"
    assert written[0][2 * 9 + 1, 10, 0] == 5
