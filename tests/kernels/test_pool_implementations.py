"""Pooling rewritten and on TPU against plain lax in float64, where the one suite for all does not reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from zoo.kernels import dispatch, reference
from zoo.kernels.pool import rewritten, tpu_avg, tpu_max, tpu_max_gradient

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms

# The suite of all implementations looks for races.
INTERPRETER = pltpu.InterpretParams(uninitialized_memory="nan")
# Of 1 + |value|: gradients are sums of a few cotangents, rounded once.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}

# Sizes, window, strides, padding: each a way of its own through the kernels.
CASES = {
    "row": ((9,), (3,), (2,), ((1, 0),)),
    "image, strided, padded": ((7, 10), (3, 3), (2, 2), ((1, 1), (0, 1))),
    "image, stride 1": ((5, 9), (3, 2), (1, 1), ((1, 1), (1, 0))),
    "image, gaps between windows": ((8, 9), (2, 1), (3, 3), ((0, 0), (0, 0))),
    "image of one pixel": ((1, 1), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "frames apart": ((2, 5, 6), (1, 3, 3), (1, 2, 2), ((0, 0), (0, 1), (0, 1))),
    "clip, stride 1": ((4, 5, 6), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3),
    "clip, stride 2": ((4, 6, 5), (3, 3, 3), (2, 2, 2), ((0, 1), (0, 1), (1, 1))),
    "clip, whole": ((2, 3, 3), (2, 3, 3), (1, 1, 1), ((0, 0),) * 3),
    "clip, stride in time only": ((5, 3, 3), (4, 1, 2), (3, 1, 1), ((2, 1), (0, 0), (1, 1))),
}


@pytest.fixture(autouse=True)
def _interpreted():
    with pltpu.force_tpu_interpret_mode(INTERPRETER):
        yield


def options(case):
    return dict(zip(("window", "strides", "padding"), case[1:], strict=True))


def values(shape, dtype, seed=0, step=0.5):
    """Multiples of `step`, so that windows often have their largest value twice."""
    return jnp.asarray(np.round(np.random.default_rng(seed).normal(size=shape) / step) * step, dtype)


def wide(x):
    return np.asarray(x, np.float64)


def assert_close(ours, theirs, dtype):
    assert ours.dtype == dtype
    assert ours.shape == theirs.shape
    error = np.abs(wide(ours) - theirs) / (1 + np.abs(theirs))
    assert error.max() <= TOLERANCE[dtype]


def expected_of(operation, case, x, dtype):
    """Result, cotangent and gradient of plain lax in float64."""
    with jax.enable_x64(True):
        out = jax.eval_shape(lambda x: operation(x, **options(case)), wide(x))
        g = values(out.shape, dtype, seed=1)

        def both(x, g):
            out, pull = jax.vjp(lambda x: operation(x, **options(case)), x)
            return out, pull(g)[0]

        expected, gradient = jax.jit(both)(wide(x), wide(g))
        return np.asarray(expected), g, np.asarray(gradient)


def check_max(forward, backward, case, x, dtype):
    expected, g, gradient = expected_of(reference.max_pool, case, x, dtype)
    out, dx = jax.jit(lambda x, g: (forward(x, **options(case)), backward(x, None, g, **options(case))))(x, g)
    np.testing.assert_array_equal(wide(out), expected)
    assert_close(dx, gradient, dtype)


def check_avg(module, case, x, dtype):
    expected, g, gradient = expected_of(reference.avg_pool, case, x, dtype)

    def both(x, g):
        mean = module.avg_pool(x, **options(case))
        return mean, module.avg_pool_gradient(g, spatial=case[0], **options(case))

    out, dx = jax.jit(both)(x, g)
    assert_close(out, expected, dtype)
    assert_close(dx, gradient, dtype)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tpu_max_pool_and_its_gradient(case):
    x = values((2, *case[0], 3), "bfloat16")
    check_max(tpu_max.max_pool, tpu_max_gradient.max_pool_gradient, case, x, "bfloat16")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tpu_avg_pool_and_its_gradient(case):
    check_avg(tpu_avg, case, values((1, *case[0], 5), "float32"), "float32")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rewritten_pools_and_their_gradients(case):
    x = values((2, *case[0], 3), "float32")
    check_max(rewritten.max_pool, rewritten.max_pool_gradient, case, x, "float32")
    check_avg(rewritten, case, x, "float32")


@pytest.mark.parametrize("name", ["image, strided, padded", "clip, stride 2"])
def test_channels_in_blocks_of_which_the_last_is_partly_full(name):
    case = CASES[name]
    x = values((1, *case[0], 150), "bfloat16")
    check_max(tpu_max.max_pool, tpu_max_gradient.max_pool_gradient, case, x, "bfloat16")


@settings(max_examples=3, deadline=None)
@given(st.data())
def test_tpu_max_pool_of_drawn_windows(data):
    axes = data.draw(st.integers(1, 3))
    each = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
    drawn = each.map(lambda v: (max(v[0], v[1]), v[1], v[2], (min(v[3], v[1] - 1), min(v[4], v[1] - 1))))
    case = tuple(zip(*(data.draw(drawn) for _ in range(axes)), strict=True))
    with pltpu.force_tpu_interpret_mode(INTERPRETER):
        x = values((1, *case[0], 2), "float32")
        check_max(tpu_max.max_pool, tpu_max_gradient.max_pool_gradient, case, x, "float32")


@pytest.mark.parametrize("forward", [rewritten.max_pool, tpu_max.max_pool], ids=["rewritten", "pallas_tpu"])
def test_nan_and_infinities_come_through(forward):
    x = np.zeros((1, 4, 6, 2), np.float32)
    x[0, 1, 1], x[0, 3, 4], x[0, 0, 5] = np.nan, np.inf, -np.inf
    x[0, 2:, :2] = -np.inf
    how = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))}
    np.testing.assert_array_equal(forward(jnp.asarray(x), **how), reference.max_pool(x, **how))


@pytest.mark.parametrize(
    "backward",
    [rewritten.max_pool_gradient, tpu_max_gradient.max_pool_gradient],
    ids=["rewritten", "pallas_tpu"],
)
@pytest.mark.parametrize("name", ["image, strided, padded", "clip, stride 1"])
def test_padding_takes_nothing_from_a_window_of_minus_infinity(backward, name):
    case = CASES[name]
    x = jnp.full((1, *case[0], 1), -jnp.inf)
    g = jnp.ones(jax.eval_shape(lambda x: reference.max_pool(x, **options(case)), x).shape)
    dx = jax.jit(lambda x, g: backward(x, None, g, **options(case)))(x, g)
    assert dx.sum() == g.size  # XLA on a CPU gives a part of it to the padding, on a TPU none


def test_rewritten_pools_integers():
    x = np.random.default_rng(0).integers(0, 255, (1, 5, 6, 2)).astype(np.uint8)
    how = {"window": (3, 3), "strides": (1, 2), "padding": ((1, 1), (0, 0))}
    np.testing.assert_array_equal(rewritten.max_pool(jnp.asarray(x), **how), reference.max_pool(x, **how))


def test_images_larger_than_vmem_are_refused():
    x = jax.ShapeDtypeStruct((1, 1000, 1000, 64), jnp.bfloat16)
    how = {"window": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
    with pytest.raises(dispatch.Refused, match="needs"):
        jax.eval_shape(lambda x: tpu_max.max_pool(x, **how), x)
