"""CenterNet's losses against their equations written as loops, and that they can be learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from zoo.data import open_dataset
from zoo.models.centernet import DISTANCE_SCALE, STRIDE
from zoo.models.layers import Conv
from zoo.tasks.boxes import overlaps, peaks
from zoo.tasks.detection import Detection, distance_loss, focal_loss, heat_of, spread_of

BOXES = np.array([[[4, 8, 20, 30], [18, 2, 31, 9], [0, 0, 0, 0]]], np.float32)
CLASSES = np.array([[1, 0, -1]])


def least_overlap(width: float, height: float, by: float) -> float:
    """Of a box and itself with its corners off: inwards, outwards, or both the same way."""
    off = [[by, by, width - by, height - by], [-by, -by, width + by, height + by], [by, by, width + by, height + by]]
    return float(overlaps(np.array([[0, 0, width, height]]), np.array(off)).min())


def test_a_spot_s_reach_keeps_the_overlap():
    """Both corners inwards by the radius: the boxes still overlap by 0.7, and a place further they do not."""
    for width, height in ((20.0, 30.0), (12.0, 12.0), (90.0, 40.0)):
        radius = float(6 * spread_of(jnp.array([width, height])) - 1) / 2
        assert radius == pytest.approx(round(radius), abs=1e-4)
        radius = round(radius)
        assert least_overlap(width, height, radius) >= 0.7 - 1e-6
        assert least_overlap(width, height, radius + 1) < 0.7


def test_heat():
    heat = np.asarray(heat_of(jnp.asarray(BOXES), jnp.asarray(CLASSES), (8, 8), 3))[0]
    middles = {(4, 3): 1, (1, 6): 0}
    assert {tuple(place) for place in np.argwhere(heat == 1)[:, :2].tolist()} == set(middles)
    for (row, column), kind in middles.items():
        assert heat[row, column, kind] == 1
    spread = float(spread_of(jnp.array([16 / STRIDE, 22 / STRIDE])))
    assert heat[5, 3, 1] == pytest.approx(np.exp(-1 / (2 * spread**2)), rel=1e-5)
    assert not heat[..., 2].any()


def test_focal_loss_equals_its_equation():
    rng = np.random.default_rng(0)
    heat = np.asarray(heat_of(jnp.asarray(BOXES), jnp.asarray(CLASSES), (8, 8), 3))
    logits = rng.normal(size=heat.shape).astype(np.float32)
    total = 0.0
    for wanted, logit in zip(heat.ravel().astype(float), logits.ravel().astype(float), strict=True):
        share = 1 / (1 + np.exp(-logit))
        if wanted == 1:
            total -= (1 - share) ** 2 * np.log(share)
        else:
            total -= (1 - wanted) ** 4 * share**2 * np.log(1 - share)
    assert float(focal_loss(jnp.asarray(logits), jnp.asarray(heat))[0]) == pytest.approx(total / 2, rel=1e-4)


def test_distances_are_those_that_peaks_read():
    distances = np.zeros((1, 8, 8, 4), np.float32)
    distances[0, 4, 3] = 12 - 4, 16 - 8, 20 - 12, 30 - 16
    distances[0, 1, 6] = 24 - 18, 4 - 2, 31 - 24, 9 - 4
    assert float(distance_loss(jnp.asarray(distances), jnp.asarray(BOXES), jnp.asarray(CLASSES))[0]) == 0
    logits = np.full((1, 8, 8, 2), -9, np.float32)
    logits[0, 4, 3, 1], logits[0, 1, 6, 0] = 2, 1
    boxes, _, classes = peaks(jnp.asarray(np.concatenate([logits, distances], -1)), STRIDE, count=2)
    np.testing.assert_allclose(boxes[0], BOXES[0, :2])
    np.testing.assert_array_equal(classes[0], CLASSES[0, :2])
    distances[0, 1, 6, 0] += 8
    error = float(distance_loss(jnp.asarray(distances), jnp.asarray(BOXES), jnp.asarray(CLASSES))[0])
    assert error == pytest.approx(8 / DISTANCE_SCALE / 2)


def test_boxes_are_around_the_ink():
    data = open_dataset("boxed_digits", "test")
    for index in range(20):
        item = data[index]
        image, boxes = item["image"][..., 0], item["boxes"][item["box_classes"] >= 0]
        rest = image.copy()
        for left, top, right, bottom in boxes.astype(int):
            rest[top:bottom, left:right] = 0
            assert image[top:bottom, left:right].max() > 150
        assert rest.max() < 48, "no ink outside of the boxes"
    first, again = data[3], open_dataset("boxed_digits", "test")[3]
    np.testing.assert_array_equal(first["image"], again["image"])


class Spots(nnx.Module):
    """The least network that has what a detector answers."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = Conv(3, 16, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.second = Conv(16, 10 + 4, (5, 5), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(jax.nn.relu(self.first(x / 255)))


def test_the_loss_goes_down():
    data = open_dataset("boxed_digits", "train", size=32, max_digits=1)
    items = [data[index] for index in range(8)]
    batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
    task, model = Detection(), Spots(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value, gradients = nnx.value_and_grad(lambda model: task.loss(model, batch, jax.random.key(0))[0])(model)
        optimizer.update(model, gradients)
        return value

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    figures = task.evaluate(model, batch, jax.random.key(0))
    assert figures["loss"].shape == (8,)


def test_average_precision_of_all_items():
    """Two images: in one both boxes are found, in the other one of two, beside a wrong one that is less sure."""
    boxes = np.stack([BOXES[0], BOXES[0]])
    answers = {
        "boxes": boxes,
        "classes": np.stack([CLASSES[0]] * 2),
        "found": boxes,
        "found_classes": np.array([[1, 0, 0], [1, 1, 0]]),
        "scores": np.array([[0.9, 0.8, 0.0], [0.7, 0.6, 0.0]], np.float32),
    }
    figures = Detection().over_all(answers)
    # Class 1 is found twice of two, before anything wrong; class 0 once of two, so up to a recall of a half.
    assert figures["AP50"] == pytest.approx((1 + 51 / 101) / 2)
    assert "AP_large" not in figures, "there is none of that size"
