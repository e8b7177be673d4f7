"""The networks over frame features, against their formulas written out with NumPy, one frame and centre at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.models.frame_lstm import Mixture
from zoo.models.nextvlad import NeXtVLAD


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_a_mixture_is_the_experts_weighted_by_the_gate():
    mixture = Mixture(6, 3, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    gates = softmax((x @ np.asarray(mixture.gates.kernel[...])).reshape(4, 3, 3))
    experts = sigmoid((x @ np.asarray(mixture.experts.kernel[...])).reshape(4, 3, 2))
    expected = (gates[..., :2] * experts).sum(-1)
    np.testing.assert_allclose(sigmoid(np.asarray(mixture(x))), expected, rtol=1e-5)
    # Where a probability would round to 0 or 1 its logit is still a number.
    assert np.isfinite(mixture(1000 * x)).all()


def test_aggregation_sums_what_differs_from_each_centre():
    vlad = NeXtVLAD(6, clusters=3, groups=2, rngs=nnx.Rngs(0))
    vlad.eval()
    x = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    is_there = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
    kernel = {name: np.asarray(getattr(vlad, name).kernel[...]) for name in ("expand", "attention", "assign")}
    centres = np.asarray(vlad.centres[...])
    expected = np.zeros((2, 6, 3))
    for video in range(2):
        for frame in range(4):
            wide = x[video, frame] @ kernel["expand"]
            attention = sigmoid(wide @ kernel["attention"]) * is_there[video, frame]
            shares = softmax((wide @ kernel["assign"] / np.sqrt(1 + 1e-3)).reshape(2, 3))
            for group in range(2):
                part = wide.reshape(2, 6)[group]
                for centre in range(3):
                    weight = attention[group] * shares[group, centre]
                    expected[video, :, centre] += weight * (part - centres[:, centre])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    expected = expected.reshape(2, -1) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(vlad(x, is_there), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("frame_lstm", {"hidden_features": 8, "num_classes": 5}),
        ("nextvlad", {"clusters": 4, "groups": 4, "hidden_features": 16, "num_classes": 5}),
    ],
)
def test_what_is_behind_a_video_does_not_count(arch: str, options: dict[str, int]):
    model = zoo.create(arch, **options)
    model.eval()
    x = jax.random.normal(jax.random.key(0), (2, 5, 1152))
    answer = nnx.jit(lambda model, x, counts=None: model(x, counts))
    padded = answer(model, x, jnp.array([3, 5]))
    changed = answer(model, x.at[0, 3:].add(7.0), jnp.array([3, 5]))
    np.testing.assert_array_equal(padded, changed)
    np.testing.assert_allclose(padded[:1], answer(model, x[:1, :3]), atol=1e-5)
    np.testing.assert_allclose(padded[1:], answer(model, x[1:]), atol=1e-5)
    assert padded.shape == (2, 5)
