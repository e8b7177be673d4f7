"""Convolution, pooling and ConvLSTM against loops over every output position, and against the definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from zoo import kernels


@st.composite
def windows(draw):
    """Spatial sizes, window, strides, dilation and padding of 1 to 3 axes that leave at least one output."""
    axes = draw(st.integers(1, 3))
    per_axis = {
        "sizes": st.integers(5, 7),
        "window": st.integers(1, 3),
        "strides": st.integers(1, 3),
        "dilation": st.integers(1, 2),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    }
    case = {name: tuple(draw(values) for _ in range(axes)) for name, values in per_axis.items()}
    case["padding"] = draw(st.sampled_from(["SAME", "VALID", case["padding"]]))
    return case


def taps(x, window, strides, dilation, padding, fill):
    """Each output position and the values under its window: x [*spatial, C], one output at a time."""
    spatial = x.shape[:-1]
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(spatial, reach, strides, padding)
    x = np.pad(x, [*padding, (0, 0)], constant_values=fill)
    counts = [(n - r) // s + 1 for n, r, s in zip(x.shape[:-1], reach, strides, strict=True)]
    for position in itertools.product(*map(range, counts)):
        corner = [p * s for p, s in zip(position, strides, strict=True)]
        region = tuple(slice(c, c + r, d) for c, r, d in zip(corner, reach, dilation, strict=True))
        yield counts, position, x[region]


def by_loops(x, window, strides, dilation, padding, fill, reduce, features):
    out = None
    for counts, position, values in taps(x, window, strides, dilation, padding, fill):
        out = np.zeros((*counts, features)) if out is None else out
        out[position] = reduce(values)
    return out


def random_input(case, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(*case["sizes"], channels)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(windows(), st.sampled_from([1, 2]))
def test_conv_is_the_sum_over_its_window(case, groups):
    x = random_input(case, 4)
    kernel = np.random.default_rng(1).normal(size=(*case["window"], 4 // groups, 6)).astype(np.float32)

    def reduce(values):
        parts = zip(np.split(values, groups, -1), np.split(kernel, groups, -1), strict=True)
        return np.concatenate([np.tensordot(v, k, axes=v.ndim) for v, k in parts])

    names = ("window", "strides", "dilation", "padding")
    expected = by_loops(x, *(case[name] for name in names), 0, reduce, 6)
    options = {name: case[name] for name in ("strides", "dilation", "padding")}
    ours = kernels.conv(jnp.asarray(x)[None, None], kernel, groups=groups, **options)[0, 0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(windows())
def test_depthwise_conv_keeps_channels_apart(case):
    x = random_input(case, 3)
    kernel = np.random.default_rng(1).normal(size=(*case["window"], 1, 3)).astype(np.float32)
    ones = (1,) * len(case["window"])

    def reduce(values):
        return (values * kernel[..., 0, :]).reshape(-1, 3).sum(0)

    expected = by_loops(x, case["window"], case["strides"], ones, case["padding"], 0, reduce, 3)
    ours = kernels.depthwise_conv(jnp.asarray(x)[None], kernel, strides=case["strides"], padding=case["padding"])[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(windows())
def test_pooling_does_not_count_padding(case):
    # Padding beyond the window would leave windows that hold nothing at all.
    if not isinstance(case["padding"], str):
        case["padding"] = tuple(
            (min(a, k - 1), min(b, k - 1)) for (a, b), k in zip(case["padding"], case["window"], strict=True)
        )
    x = random_input(case, 2) - 5  # below zero throughout: zero padding would win the maximum
    ones = (1,) * len(case["window"])
    options = {name: case[name] for name in ("window", "strides", "padding")}
    for pool, reduce in ((kernels.max_pool, np.nanmax), (kernels.avg_pool, np.nanmean)):
        expected = by_loops(
            x, case["window"], case["strides"], ones, case["padding"], np.nan,
            lambda v, reduce=reduce: reduce(v.reshape(-1, 2), 0), 2,
        )  # fmt: skip
        np.testing.assert_allclose(pool(jnp.asarray(x)[None], **options)[0], expected, rtol=1e-5)


def test_conv_lstm_follows_the_equations_step_by_step():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 5, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3 + 2, 8)).astype(np.float32) / 5
    bias = rng.normal(size=8).astype(np.float32)
    h, c = rng.normal(size=(2, 2, 5, 6, 2)).astype(np.float32)
    state = (jnp.asarray(h), jnp.asarray(c))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    outputs = []
    for t in range(4):
        both = np.pad(np.concatenate([x[:, t], h], -1), ((0, 0), (1, 1), (1, 1), (0, 0)))
        gates = bias + sum(both[:, i : i + 5, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3))
        i, f, g, o = np.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    ours, (last_h, last_c) = kernels.conv_lstm(x, kernel, bias, initial_state=state)
    np.testing.assert_allclose(ours, np.stack(outputs, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last_h, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last_c, c, rtol=1e-4, atol=1e-5)


def test_conv_lstm_goes_on_from_its_state():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 6, 4, 4, 2)), jnp.float32)
    kernel, bias = jnp.asarray(rng.normal(size=(3, 3, 5, 12)), jnp.float32), jnp.zeros(12)
    whole, _ = kernels.conv_lstm(x, kernel, bias)
    first, state = kernels.conv_lstm(x[:, :2], kernel, bias)
    rest, _ = kernels.conv_lstm(x[:, 2:], kernel, bias, initial_state=state)
    np.testing.assert_allclose(whole, jnp.concatenate([first, rest], 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: kernels.conv(x, jnp.ones((3, 3, 5, 2))), "do not fit"),
        (lambda x: kernels.conv(x, jnp.ones((3, 3, 4, 2)), strides=(1, 1, 1)), "strides=.* has 3 numbers for 2"),
        (lambda x: kernels.conv(x, jnp.ones((3, 3, 4, 2)), implementation="cuda"), "implementation 'cuda' is none of"),
        (lambda x: kernels.depthwise_conv(x, jnp.ones((3, 3, 2, 4))), r"should end in \(1, 4\)"),
        (lambda x: kernels.max_pool(x, window=(2, 2, 2, 2)), "1, 2 or 3 spatial axes"),
        (lambda x: kernels.conv_lstm(x, jnp.ones((3, 3, 6, 8)), jnp.zeros(8)), "wants a kernel"),
    ],
)
def test_a_wrong_call_is_told_what_does_not_fit(call, words):
    with pytest.raises(ValueError, match=words):
        call(jnp.ones((1, 5, 5, 4)))


def test_integer_maximum():
    x = jnp.asarray(np.arange(16).reshape(1, 4, 4, 1) - 20, jnp.int32)
    pooled = jax.jit(lambda x: kernels.max_pool(x, window=(3, 3), strides=1, padding="SAME"))(x)
    assert pooled[0, :, :, 0].tolist() == [[-15, -14, -13, -13], [-11, -10, -9, -9], [-7, -6, -5, -5], [-7, -6, -5, -5]]
