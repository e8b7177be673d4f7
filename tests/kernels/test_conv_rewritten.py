"""Convolution with rows folded into channels against plain lax, with gradients against lax's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.kernels import reference
from zoo.kernels.conv import rewritten_rows as rewritten
from zoo.kernels.dispatch import Refused

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms

# Of the largest value. Both sides round bfloat16 once; the order of sums differs.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def _random(seed, shape, dtype):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def _close(got, want, dtype):
    got, want = np.asarray(got, np.float64), np.asarray(want)
    np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * max(abs(want).max(), 1.0), rtol=0)


def _check(shape, window, features, strides, padding, dilation, dtype="float32", **blocks):
    x, kernel = _random(0, shape, dtype), _random(1, (*window, shape[-1], features), dtype)
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": 1}
    with jax.enable_x64(True):
        exact_x, exact_kernel = (jnp.asarray(a, jnp.float64) for a in (x, kernel))
        want, back = jax.vjp(lambda x, k: reference.conv(x, k, **options), exact_x, exact_kernel)
        g = _random(2, want.shape, dtype)
        want_dx, want_dkernel = back(g.astype(jnp.float64))
    got = rewritten.conv(x, kernel, **options, **blocks)
    assert got.dtype == x.dtype
    _close(got, want, dtype)
    _close(rewritten.conv_input_gradient(g, kernel, spatial=shape[1:-1], **options, **blocks), want_dx, dtype)
    dkernel = rewritten.conv_weight_gradient(x, g, window=window, **options, **blocks)
    assert dkernel.dtype == jnp.float32
    _close(dkernel, want_dkernel, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "window", "features", "strides", "padding"),
    [
        ((1, 3, 10, 10, 3), (3, 7, 7), 4, (1, 2, 2), ((1, 1), (3, 3), (3, 3))),
        ((1, 8, 8, 8, 3), (7, 7, 7), 2, (2, 2, 2), ((2, 3), (2, 3), (2, 3))),
        ((2, 9, 11, 3), (3, 3), 4, (1, 1), ((1, 1), (1, 1))),
        ((2, 9, 11, 3), (3, 3), 4, (2, 2), ((0, 1), (0, 1))),
        ((1, 1, 1, 3), (3, 3), 2, (1, 1), ((1, 1), (1, 1))),
        ((2, 13, 1), (2,), 3, (3,), ((0, 0),)),
    ],
)
def test_stems(shape, window, features, strides, padding, dtype):
    _check(shape, window, features, strides, padding, (1,) * len(window), dtype)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_shape(data):
    axes = data.draw(st.integers(1, 3))

    def numbers(low, high):
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    window = (*numbers(1, 3)[:-1], data.draw(st.integers(2, 5)))
    strides, dilation = numbers(1, 3), numbers(1, 2)
    padding = tuple(zip(numbers(0, 3), numbers(0, 3), strict=True))
    spatial = tuple((k - 1) * d + 1 + extra for k, d, extra in zip(window, dilation, numbers(0, 4), strict=True))
    outputs = data.draw(st.integers(1, 5))
    _check((2, *spatial, data.draw(st.integers(1, 3))), window, 2, strides, padding, dilation, outputs=outputs)


def test_refusals_name_what_they_got():
    options = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    with pytest.raises(Refused, match="not 16 x 1"):
        rewritten.conv(jnp.zeros((1, 8, 8, 16)), jnp.zeros((3, 3, 16, 8)), groups=1, **options)
    with pytest.raises(Refused, match="not 1 x 3"):
        rewritten.conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 1, 3)), groups=3, **options)
    with pytest.raises(Refused, match=r"window \(3, 1\)"):
        rewritten.conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 1, 3, 8)), groups=1, **options)
