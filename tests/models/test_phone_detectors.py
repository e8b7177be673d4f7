"""CenterNet and MoveNet against the TensorFlow.js graphs of their weights (golden/make_tensorflow_js.py)."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import hub, kernels
from zoo.convert import centernet as centernet_layout
from zoo.convert import movenet as movenet_layout
from zoo.errors import UserError
from zoo.models.centernet import STRIDE, doubled
from zoo.models.movenet import HEADS, JOINTS
from zoo.tasks.boxes import peaks
from zoo.tasks.keypoints import joints

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_tensorflow_js.py"))
PHOTOS = ("china", "flower")


def published(name: str) -> nnx.Module:
    card = zoo.card(name)
    model = nnx.eval_shape(lambda: zoo.create(card.arch, **card.options))
    model = hub.load_weights(model, card)
    model.eval()
    return model


def run(model: nnx.Module, size: int) -> jax.Array:
    photos = SCRIPT["photos"](size)
    images = np.stack([photos[name] for name in PHOTOS]).astype(np.float32)
    with kernels.prefer("xla"):
        return nnx.jit(lambda model, images: model(images))(model, images)


@pytest.mark.slow
def test_centernet_equals_its_graph():
    answers = run(published("centernet_coco"), 512)
    boxes, scores, classes = map(np.asarray, peaks(answers, STRIDE))
    probabilities = np.asarray(jax.nn.sigmoid(answers[..., :-4]))
    with np.load(GOLDEN / "centernet.npz") as golden:
        for index, name in enumerate(PHOTOS):
            expected = golden[f"{name}_detections"]
            np.testing.assert_allclose(scores[index], expected[:, 4], atol=1e-5)
            # Where two scores are the same to the fifth digit, either may come first.
            alike = np.isclose(scores[index][:, None], scores[index][None], atol=1e-5).sum(axis=1) == 1
            assert alike.sum() > 60
            np.testing.assert_array_equal(classes[index][alike], expected[alike, 5])
            np.testing.assert_allclose(boxes[index][alike], expected[alike, :4], atol=1e-2)
            np.testing.assert_allclose(probabilities[index, ::2, ::2].mean(-1), golden[f"{name}_scores"], atol=1e-5)
            np.testing.assert_allclose(probabilities[index].max((0, 1)), golden[f"{name}_classes"], atol=1e-4)
            sizes = np.asarray(answers[index, ::8, ::8, -4:])
            np.testing.assert_allclose(sizes, golden[f"{name}_sizes"], atol=1e-2)  # of up to 300 pixels


@pytest.mark.slow
def test_movenet_equals_its_graph():
    answers = run(published("movenet_lightning"), 192)
    found = np.asarray(joints(answers))
    heat = np.asarray(jax.nn.sigmoid(answers[..., : HEADS["heat"]]).mean(-1))
    with np.load(GOLDEN / "movenet.npz") as golden:
        for index, name in enumerate(PHOTOS):
            np.testing.assert_allclose(found[index], golden[f"{name}_keypoints"], atol=1e-4)
            np.testing.assert_allclose(heat[index], golden[f"{name}_heat"], atol=1e-5)


def test_doubled_is_tensorflow_s_bilinear():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    node = {"attr": {}}
    np.testing.assert_allclose(doubled(jnp.asarray(x)), SCRIPT["resized"](node, x, (6, 10)), atol=1e-6)


def test_resizing_with_half_pixels_is_jax_s():
    """The other convention of the graphs, which MoveNet's pyramid has."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    node = {"attr": {"half_pixel_centers": {"b": True}}}
    ours = jax.image.resize(x, (2, 6, 10, 4), "bilinear")
    np.testing.assert_allclose(ours, SCRIPT["resized"](node, x, (6, 10)), atol=1e-6)


def test_joints_by_hand():
    """One person, whose joints stand where the maps say; a louder one far from the middle is not taken."""
    places = np.random.default_rng(0).integers(2, 22, (len(JOINTS), 2))
    middle, far = (12, 12), (1, 1)
    maps = {name: np.zeros((24, 24, count), np.float32) for name, count in HEADS.items()}
    maps["heat"] -= 9
    maps["middle"] -= 9
    maps["middle"][middle], maps["middle"][far] = 2, 3
    for joint, (row, column) in enumerate(places):
        maps["heat"][row, column, joint] = 1
        maps["heat"][23, 0, joint] = 1.2  # elsewhere in the image, a little likelier
        maps["reach"][middle][2 * joint : 2 * joint + 2] = row - middle[0] + 0.4, column - middle[1] - 0.4
        maps["offsets"][row, column, 2 * joint : 2 * joint + 2] = 0.25, -0.5
    found = np.asarray(joints(jnp.asarray(np.concatenate([maps[name] for name in HEADS], -1))[None]))[0]
    np.testing.assert_allclose(found[:, :2] * 24, places + np.array([0.25, -0.5]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[:, 2], 1 / (1 + np.exp(-1)), rtol=1e-5)


@pytest.mark.parametrize(("arch", "layout"), [("centernet", centernet_layout), ("movenet", movenet_layout)])
def test_weights_that_do_not_fit_are_all_named(arch: str, layout):
    model = nnx.eval_shape(lambda: zoo.create(arch))
    with pytest.raises(UserError, match=r"stem\.conv\.kernel.*unknown: no/such"):
        layout.convert({"no/such": np.zeros(3, np.float32)}, model)


def test_with_batch_norm_there_are_statistics_and_no_biases():
    model = nnx.eval_shape(lambda: zoo.create("centernet", num_classes=10, batch_norm=True))
    assert model.stem.bias is None
    assert len(jax.tree.leaves(nnx.state(model, nnx.BatchStat))) == 2 * sum(
        isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_graph(model)
    )


def test_cards():
    assert len(zoo.card("centernet_coco").labels) == 80
    assert zoo.card("centernet_coco").labels[0] == "person"
    assert zoo.card("movenet_lightning").labels == JOINTS
