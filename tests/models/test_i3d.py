"""I3D against an independent NumPy forward pass on the same weights, published figures, and its own training mode."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.golden import make_i3d
from zoo import hub, kernels, registry
from zoo.data.decode import open_video
from zoo.models.i3d import I3D, i3d
from zoo.models.inception import Unit

GOLDEN = Path(make_i3d.__file__).with_name("i3d.npz")


def abstract() -> I3D:
    return nnx.eval_shape(lambda: i3d(rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def shipped() -> I3D:
    model = hub.restore_weights(abstract(), Path(str(registry.checkpoints_folder())) / "i3d_kinetics400" / "weights")
    assert isinstance(model, I3D)
    model.eval()
    return model


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c != "odd")) for c in make_i3d.CASES])
def test_features_and_logits_of_the_shipped_weights(shipped: I3D, case: str):
    video = make_i3d.synthetic_video(make_i3d.CASES[case])
    features, logits = nnx.jit(lambda model, x: (model.features(x), model(x)))(shipped, video)
    with np.load(GOLDEN) as golden:
        # Logits reach 25 and features 3, so the absolute tolerances only speak where a value is nearly zero.
        np.testing.assert_allclose(logits, golden[f"{case}_logits"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features, golden[f"{case}_features"], rtol=1e-4, atol=1e-5)


def test_size_is_as_published():
    card = zoo.card("i3d_kinetics400")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(), nnx.Param)))
    assert parameters == card.parameters
    # OpenVINO's model zoo measured DeepMind's frozen TensorFlow graph: 12.69M parameters.
    assert round(parameters / 1e6, 2) == 12.69
    # 108G multiply-adds for 64 frames of 224x224 are reported by Wang et al. 2018 ("Non-local") and those after them.
    assert card.flops == pytest.approx(2 * 108e9, rel=0.04)


def test_compiler_counts_the_cards_flops():
    graph, state = nnx.split(abstract())
    clip = jax.ShapeDtypeStruct((1, 64, 224, 224, 3), jnp.float32)

    def logits(state, x):
        model = nnx.merge(graph, state)
        model.eval()
        return model(x)

    with kernels.prefer("xla"):  # other forms have loops, of which XLA counts one turn
        cost = jax.jit(logits).lower(state, clip).cost_analysis()
    # XLA leaves out what falls on padding, which is 7% at this size, and counts pooling.
    assert cost["flops"] == pytest.approx(zoo.card("i3d_kinetics400").flops, rel=0.08)


def test_labels_are_kinetics_400_in_order():
    labels = zoo.card("i3d_kinetics400").labels
    # DeepMind's label map is sorted by bytes; these places are read off it.
    assert len(set(labels)) == 400
    assert list(labels) == sorted(labels)
    assert [labels[index] for index in (0, 203, 394, 399)] == [
        "abseiling",
        "opening bottle",
        "wrapping present",
        "zumba",
    ]


@pytest.mark.parametrize(
    ("shape", "pooled"),
    [
        ((2, 64, 224, 224, 3), (2, 7, 1, 1, 1024)),
        ((1, 9, 224, 224, 3), (1, 1, 1, 1, 1024)),
        ((1, 1, 32, 32, 3), (1, 1, 1, 1, 1024)),
        ((1, 16, 256, 340, 3), (1, 1, 2, 5, 1024)),
    ],
)
def test_every_size_ends_in_logits(shape: tuple[int, ...], pooled: tuple[int, ...]):
    # Five halvings that round up, then 7x7 without padding: 340 pixels become 11 and leave 5 places.
    clip = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    outputs = nnx.eval_shape(lambda model, x: (model.pooled(x), model.features(x), model(x)), abstract(), clip)
    assert [output.shape for output in outputs] == [pooled, (shape[0], 1024), (shape[0], 400)]
    assert {output.dtype for output in outputs} == {jnp.dtype(jnp.bfloat16)}


def test_training_mode_follows_the_batch_statistics():
    unit = Unit(3, 4, 3, axes=3, strides=2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 5, 6, 7, 3)) + 1
    before = np.asarray(unit.conv(x), np.float64).reshape(-1, 4)
    after = np.maximum((before - before.mean(axis=0)) / np.sqrt(before.var(axis=0) + 1e-3), 0)

    unit.train()
    np.testing.assert_allclose(np.asarray(unit(x)).reshape(-1, 4), after, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unit.norm.mean[...], 0.01 * before.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(unit.norm.var[...], 0.99 + 0.01 * before.var(axis=0), rtol=1e-4)

    unit.eval()
    stored = np.asarray(unit.norm.mean[...])
    unit(x)
    np.testing.assert_array_equal(unit.norm.mean[...], stored)


@pytest.mark.slow
def test_a_training_step_reaches_every_parameter_and_statistic(shipped: I3D):
    model = nnx.clone(shipped)
    model.train()
    model.dropout.deterministic = True  # it draws anew in each call, which would hide the step
    clips = jax.random.uniform(jax.random.key(0), (2, 9, 32, 32, 3), minval=-1, maxval=1)
    labels = jnp.array([1, 3])

    @nnx.jit
    def loss_and_gradient(model):
        def loss(model):
            return -jnp.take_along_axis(nnx.log_softmax(model(clips)), labels[:, None], axis=1).mean()

        return nnx.value_and_grad(loss)(model)

    with kernels.prefer("xla"):  # it compiles in a quarter of the time
        before, gradient = loss_and_gradient(model)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    old, new = (jax.tree.leaves(nnx.state(network, nnx.BatchStat)) for network in (shipped, model))
    assert all(np.abs(now - then).max() > 0 for now, then in zip(new, old, strict=True))
    # A step small enough for the tangent to hold takes off about rate * |gradient|^2.
    squared = sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient))
    rate = 1e-3 * before / squared
    parameters = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda value, slope: value - rate * slope, parameters, gradient))
    after, _ = loss_and_gradient(model)
    np.testing.assert_allclose(before - after, rate * squared, rtol=0.2)


def test_dropout_halves_the_features_in_training_mode_alone(shipped: I3D):
    dropout = nnx.clone(shipped.dropout)
    ones = jnp.ones((1, 1, 1, 1, 1024))
    dropout.train()
    draws = np.array([dropout(ones) for _ in range(4)])
    assert set(draws.ravel().tolist()) == {0.0, 2.0}
    # Each is kept with chance 1/2: the mean's standard deviation is 1/32.
    np.testing.assert_allclose(draws.mean(axis=(1, 2, 3, 4, 5)), 1, atol=0.15)
    assert len({draw.tobytes() for draw in draws}) == 4
    dropout.eval()
    np.testing.assert_array_equal(dropout(ones), ones)


@nnx.jit
def logits_of(model: I3D, clips: jax.Array) -> jax.Array:
    with kernels.prefer("xla"):
        return model(clips)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), [("cup.mp4", "opening bottle"), ("box.mp4", "wrapping present")])
def test_real_clips_get_real_labels(name: str, label: str):
    """opencv-doc's, in the folder that ZOO_REAL_CLIPS names: a hand moves a flask, another one a box of sweets.

    Neither is an action of Kinetics. Seen in 32 frames spread over the whole video, the nearest one is plain.
    """
    predictor = zoo.load("i3d_kinetics400")
    with open_video(Path(os.environ["ZOO_REAL_CLIPS"]) / name) as reader:
        frames = reader.frames_at(np.linspace(0, reader.duration, 32, endpoint=False))
    clips = dataclasses.replace(predictor.preprocess, num_frames=32)(frames)
    probabilities = nnx.softmax(logits_of(predictor.model, clips))[0]
    assert predictor.labels[int(probabilities.argmax())] == label
    assert probabilities.max() > 0.5
