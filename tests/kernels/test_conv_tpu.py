"""The dense convolution kernels for TPUs, interpreted on the CPU, against plain lax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from zoo.kernels import reference
from zoo.kernels.conv import tpu, tpu_fused_pool, tpu_input_gradient, tpu_weight_gradient
from zoo.kernels.dispatch import Refused

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms

INTERPRETER = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
# bfloat16 operands are rounded in both; results are rounded once more here.
TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 1e-2}

# x, kernel, strides, padding, dilation, dtype, blocks: the batch inside and outside, taps shifted or not, folded rows.
CASES = {
    "batch inside, two rows folded": (
        (8, 6, 5, 64),
        (3, 3, 64, 64),
        (1, 1),
        ((1, 1), (1, 1)),
        (1, 1),
        jnp.bfloat16,
        {},
    ),
    "batch outside, stride": ((2, 9, 7, 5), (3, 2, 5, 4), (2, 2), ((1, 0), (0, 1)), (1, 1), jnp.float32, {"rows": 2}),
    "odd batch inside, dilation": (
        (3, 7, 6, 4),
        (2, 3, 4, 130),
        (1, 1),
        ((0, 2), (2, 1)),
        (2, 2),
        jnp.float32,
        {"inside": 1},
    ),
    "sequence, stride beyond the window": ((8, 13, 3), (2, 3, 6), (3,), ((0, 1),), (1,), jnp.float32, {}),
    "video": ((1, 3, 4, 5, 8), (3, 3, 3, 8, 16), (2, 1, 1), ((1, 1),) * 3, (1, 1, 1), jnp.bfloat16, {}),
    "time alone": ((8, 5, 2, 3, 16), (3, 1, 1, 16, 8), (1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), jnp.float32, {}),
    "one pixel": ((1, 1, 1, 4), (3, 3, 4, 4), (1, 1), ((1, 1), (1, 1)), (1, 1), jnp.float32, {}),
}


# The interpreter takes seconds for each.
QUICK = ("batch outside, stride", "time alone", "one pixel")


@pytest.fixture(params=[c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def case(request):
    """x, kernel, a cotangent, the options and the blocks."""
    x, kernel, strides, padding, dilation, dtype, blocks = CASES[request.param]
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": 1}
    x, kernel = _draw(x, dtype), _draw(kernel, dtype)
    g = _draw(jax.eval_shape(lambda x, k: reference.conv(x, k, **options), x, kernel).shape, dtype)
    return x, kernel, g, options, blocks


@pytest.fixture(autouse=True)
def interpreted():
    with pltpu.force_tpu_interpret_mode(INTERPRETER):
        yield
    jax.clear_caches()


def _draw(shape, dtype):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def _check(got, want, dtype, terms):
    assert got.shape == want.shape
    tolerance = TOLERANCE[jnp.dtype(dtype).type] * np.sqrt(terms)
    np.testing.assert_allclose(np.asarray(got, np.float32), np.asarray(want, np.float32), atol=tolerance, rtol=1e-2)


def _wide(*arrays):
    return [x.astype(jnp.float32) for x in arrays]


def test_forward(case):
    x, kernel, _, options, blocks = case
    got = tpu.conv(x, kernel, **options, **blocks)
    assert got.dtype == x.dtype
    _check(got, reference.conv(*_wide(x, kernel), **options), x.dtype.type, kernel[..., 0].size)


def test_input_gradient(case):
    x, kernel, g, options, blocks = case
    spatial = x.shape[1:-1]
    got = tpu_input_gradient.conv_input_gradient(g, kernel, spatial=spatial, **options, **blocks)
    assert got.dtype == g.dtype
    want = reference.conv_input_gradient(*_wide(g, kernel), spatial=spatial, **options)
    _check(got, want, x.dtype.type, kernel[..., 0, :].size)


def test_weight_gradient(case):
    x, kernel, g, options, blocks = case
    window = kernel.shape[:-2]
    got = tpu_weight_gradient.conv_weight_gradient(x, g, window=window, **options, **blocks)
    assert got.dtype == jnp.float32
    want = reference.conv_weight_gradient(*_wide(x, g), window=window, **options)
    _check(got, want, x.dtype.type, g[..., 0].size)


@pytest.mark.parametrize(
    ("batch", "pool", "pool_strides", "pool_padding"),
    [
        pytest.param(8, (2, 2), (2, 2), ((0, 0), (0, 0)), marks=pytest.mark.slow),
        (1, (3, 3), (2, 2), ((1, 1), (1, 1))),
        pytest.param(8, (3, 2), (2, 1), ((1, 0), (0, 1)), marks=pytest.mark.slow),
    ],
)
def test_fused_pool(batch, pool, pool_strides, pool_padding):
    x, kernel, bias = (
        _draw((batch, 7, 6, 8), jnp.bfloat16),
        _draw((3, 3, 8, 16), jnp.bfloat16),
        _draw((16,), jnp.float32),
    )
    options = {"activation": "relu", "strides": (1, 1), "padding": ((1, 1), (1, 1)), "window": pool}
    options |= {"pool_strides": pool_strides, "pool_padding": pool_padding}
    got = tpu_fused_pool.conv_bias_act_pool(x, kernel, bias, **options, rows=2)
    _check(got, reference.conv_bias_act_pool(*_wide(x, kernel), bias, **options), jnp.bfloat16, 72)


def test_residual_without_pool():
    x, kernel, bias = _draw((2, 5, 4, 8), jnp.float32), _draw((3, 3, 8, 8), jnp.float32), _draw((8,), jnp.float32)
    options = {"activation": "silu", "strides": (1, 1), "padding": ((1, 1), (1, 1)), "window": None}
    options |= {"pool_strides": None, "pool_padding": None}
    got = tpu_fused_pool.conv_bias_act_pool(x, kernel, bias, x, **options)
    _check(got, reference.conv_bias_act_pool(x, kernel, bias, x, **options), jnp.float32, 72)


def test_nan_passes_the_pool():
    x = jnp.zeros((1, 4, 4, 8)).at[0, 1, 2, 3].set(jnp.nan)
    options = {"activation": None, "strides": (1, 1), "padding": ((0, 0), (0, 0)), "window": (2, 2)}
    options |= {"pool_strides": (2, 2), "pool_padding": ((0, 0), (0, 0))}
    got = tpu_fused_pool.conv_bias_act_pool(x, jnp.ones((1, 1, 8, 8)), jnp.zeros(8), **options)
    np.testing.assert_array_equal(np.isnan(got).all(-1)[0], [[False, True], [False, False]])


def test_refusals():
    x, kernel = _draw((1, 4, 4, 8), jnp.float32), _draw((3, 3, 4, 8), jnp.float32)
    options = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    with pytest.raises(Refused, match="groups=2"):
        tpu.conv(x, kernel, groups=2, **options)
    wide = jax.ShapeDtypeStruct((8, 3, 1 << 16, 128), jnp.float32)
    with pytest.raises(Refused, match="does not fit into VMEM"):
        jax.eval_shape(
            lambda x, k: tpu.conv(x, k, groups=1, **options), wide, jax.ShapeDtypeStruct((3, 3, 128, 8), jnp.float32)
        )
