"""Every implementation of depthwise convolution against plain lax, with gradients against lax's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from zoo.kernels import reference
from zoo.kernels.depthwise import rewritten, tpu, tpu_gradients
from zoo.kernels.dispatch import Refused

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms

# Of the largest value: bfloat16 keeps 8 bits, and every implementation rounds once, at the end.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def _random(seed, shape, dtype):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def _close(got, want, dtype):
    assert got.shape == want.shape
    got, want = np.asarray(got, np.float64), np.asarray(want)
    np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * max(abs(want).max(), 1.0), rtol=0)


def _check(forward, gradients, shape, window, strides, padding, dtype="float32", **blocks):
    """Result and both gradients of one implementation against float64."""
    x, kernel = _random(0, shape, dtype), _random(1, (*window, 1, shape[-1]), dtype)
    options = {"strides": strides, "padding": padding}
    with jax.enable_x64(True):
        exact_x, exact_kernel = (jnp.asarray(a, jnp.float64) for a in (x, kernel))
        want, back = jax.vjp(lambda x, k: reference.depthwise_conv(x, k, **options), exact_x, exact_kernel)
        g = _random(2, want.shape, dtype)
        want_dx, want_dkernel = back(g.astype(jnp.float64))
    got = forward.depthwise_conv(x, kernel, **options, **blocks)
    assert got.dtype == x.dtype
    _close(got, want, dtype)
    dx = gradients.depthwise_conv_input_gradient(g, kernel, spatial=shape[1:-1], **options, **blocks)
    assert dx.dtype == g.dtype
    _close(dx, want_dx, dtype)
    dkernel = gradients.depthwise_conv_weight_gradient(x, g, window=window, **options, **blocks)
    assert dkernel.dtype == jnp.float32
    _close(dkernel, want_dkernel, "float32")


_SPATIAL_2D = [
    ((1, 5, 6, 3), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((2, 7, 4, 5), (3, 3), (2, 2), ((0, 1), (1, 0))),
    ((2, 9, 8, 5), (5, 5), (2, 2), ((2, 2), (1, 2))),
    ((1, 1, 1, 2), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((1, 6, 7, 2), (2, 3), (3, 4), ((0, 0), (4, 0))),
]
_TEMPORAL = [
    ((2, 5, 3, 4, 6), (3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0))),
    ((1, 4, 5, 20, 3), (5, 1, 1), (1, 1, 1), ((2, 2), (0, 0), (0, 0))),  # wide: the width lies in lanes
    ((1, 7, 2, 3, 130), (3, 1, 1), (2, 1, 1), ((0, 1), (0, 0), (0, 0))),
    ((2, 1, 1, 1, 1), (5, 1, 1), (1, 1, 1), ((3, 3), (0, 0), (0, 0))),
    ((1, 6, 4, 5), (3, 1), (4, 1), ((1, 1), (0, 0))),  # the stride passes frames by
    ((2, 6, 5), (2,), (1,), ((0, 0),)),
]


@pytest.mark.parametrize(("shape", "window", "strides", "padding"), _SPATIAL_2D + _TEMPORAL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shifted_multiply_adds(shape, window, strides, padding, dtype):
    _check(rewritten, rewritten, shape, window, strides, padding, dtype)


@pytest.mark.parametrize(("shape", "window", "strides", "padding"), _TEMPORAL)
def test_temporal_kernel(shape, window, strides, padding):
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(uninitialized_memory="nan")):
        _check(tpu, tpu_gradients, shape, window, strides, padding)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_temporal_kernel_with_a_block_over_the_edge(rows):
    """Rows beyond the image hold anything, here NaN, and must reach no sum."""
    mode = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(mode):
        case = ((2, 4, 5, 6, 7), (3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0)))
        _check(tpu, tpu_gradients, *case, "bfloat16", rows=rows)


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_shifted_multiply_adds_of_any_shape(data):
    axes = data.draw(st.integers(1, 3))

    def numbers(low, high):
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    window, strides = numbers(1, 4), numbers(1, 3)
    padding = tuple(zip(numbers(0, 3), numbers(0, 3), strict=True))
    spatial = tuple(k + extra for k, extra in zip(window, numbers(0, 4), strict=True))
    _check(rewritten, rewritten, (2, *spatial, 3), window, strides, padding)


@pytest.mark.parametrize(
    ("shape", "window", "padding"),
    [
        ((2, 5, 16, 9), (3, 3), ((1, 1), (1, 1))),  # channels in lanes
        ((1, 4, 130, 6), (3, 5), ((0, 2), (3, 1))),  # a long row lies in lanes
        ((8, 6, 5, 9), (5, 5), ((2, 2), (2, 2))),  # short rows: the batch lies in sublanes
        ((8, 1, 1, 3), (3, 3), ((1, 1), (1, 1))),
        ((1, 2, 3, 2), (2, 2), ((4, 4), (5, 5))),  # results that see no pixel
        ((1, 3, 8, 300), (3, 3), ((1, 1), (0, 0))),  # channels that do not fill their last block
    ],
)
def test_spatial_kernel(shape, window, padding):
    options = {"strides": (1, 1), "padding": padding}
    x, kernel = _random(0, shape, "float32"), _random(1, (*window, 1, shape[-1]), "float32")
    want = reference.depthwise_conv(x, kernel, **options)
    g = _random(2, want.shape, "float32")
    want_dx = reference.depthwise_conv_input_gradient(g, kernel, spatial=shape[1:3], **options)
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(uninitialized_memory="nan")):
        _close(tpu.depthwise_conv(x, kernel, **options), want, "float32")
        if max(max(pair) for pair in padding) < min(window):
            dx = tpu_gradients.depthwise_conv_input_gradient(g, kernel, spatial=shape[1:3], **options)
            _close(dx, want_dx, "float32")


def test_refusals_name_what_they_got():
    x, kernel = jnp.zeros((1, 70, 2, 2, 8)), jnp.zeros((3, 1, 1, 1, 8))
    options = {"strides": (1, 1, 1), "padding": ((1, 1), (0, 0), (0, 0))}
    with pytest.raises(Refused, match="at most 64, not 70"):
        tpu.depthwise_conv(x, kernel, **options)
    with pytest.raises(Refused, match=r"not \(3, 2, 1\)"):
        tpu.depthwise_conv(x, jnp.zeros((3, 2, 1, 1, 8)), **options)
    with pytest.raises(Refused, match="125 taps"):
        rewritten.depthwise_conv(jnp.zeros((1, 200, 1)), jnp.zeros((126, 1, 1)), strides=(1,), padding=((0, 0),))
