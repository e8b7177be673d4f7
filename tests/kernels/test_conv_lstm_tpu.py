"""The ConvLSTM's TPU kernels in Pallas's interpreter: against plain lax, and its gradients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from zoo.kernels import reference
from zoo.kernels.conv_lstm import layout, stack, tpu, tpu_gradient
from zoo.kernels.dispatch import Refused

# Of the largest value. Gates and cells saved in bfloat16 are good to 1/512 each; errors add up over steps and pixels.
TOLERANCE = {"float32": 2e-5, "bfloat16": 4e-2}


@pytest.fixture(autouse=True)
def interpreter():
    """Memory that nobody wrote is not a number, so that reading it shows."""
    jax.clear_caches()
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(uninitialized_memory="nan")):
        yield
    jax.clear_caches()


def layer(x, kernel, dtype, *, starts=True, seed=0):
    """x of the shape given, a kernel of `[kh, kw, F]`, bias, initial state, gradients of outputs and final state."""
    rng = np.random.default_rng(seed)
    height, width, features = kernel

    def normal(*shape, scale=1.0):
        return jnp.asarray(rng.normal(size=shape) * scale, dtype)

    inputs = height * width * (x[-1] + features)
    weights = normal(height, width, x[-1] + features, 4 * features, scale=inputs**-0.5)
    bias = normal(4 * features)
    frame = (x[0], *x[2:4], features)
    state = (normal(*frame), normal(*frame)) if starts else None
    return normal(*x), weights, bias, state, normal(*x[:4], features), (normal(*frame), normal(*frame))


def in_float64(x, kernel, bias, state, d_outputs, d_state):
    """Results and gradients of plain lax."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (x, kernel, bias, state))
        results, pull_back = jax.vjp(lambda x, k, b, s: reference.conv_lstm(x, k, b, initial_state=s), *wide)
        gradients = pull_back(jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (d_outputs, d_state)))
        return jax.tree.map(np.asarray, (results, gradients))


def assert_close(ours, expected, dtype):
    for our, right in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        our = np.asarray(our, np.float64)
        np.testing.assert_allclose(our, right, rtol=0, atol=TOLERANCE[dtype] * max(1e-3, np.abs(right).max()))


def case(x, kernel, rows, dtype, name, *, slow=True):
    return pytest.param(x, kernel, rows, dtype, id=f"{name}, {dtype}", marks=[pytest.mark.slow] if slow else [])


CASES = [
    case((8, 2, 3, 4, 2), (3, 3, 2), 1, "bfloat16", "reads and writes the usual layout", slow=False),
    case((2, 2, 2, 3, 2), (3, 3, 2), None, "float32", "odd width", slow=False),
    case((8, 3, 4, 8, 3), (3, 3, 2), 1, "float32", "reads and writes the usual layout"),
    case((16, 2, 6, 4, 2), (5, 5, 3), 2, "bfloat16", "two groups of images, 5x5"),
    case((3, 2, 4, 6, 1), (3, 3, 66), None, "float32", "more than half a register of features"),
    case((2, 2, 5, 7, 2), (5, 3, 3), None, "bfloat16", "odd width"),
    case((4, 2, 3, 8, 130), (1, 1, 2), None, "bfloat16", "1x1, more than a register of channels"),
    case((1, 1, 1, 1, 1), (3, 3, 1), None, "float32", "one pixel, one step"),
    case((4, 2, 3, 8, 2), (2, 4, 2), 1, "bfloat16", "even window"),
    case((8, 3, 1, 4, 2), (5, 2, 1), None, "bfloat16", "a frame of one row, in the usual layout"),
]


@pytest.mark.parametrize(("x", "kernel", "rows", "dtype"), CASES)
def test_results_and_gradients_are_those_of_plain_lax(x, kernel, rows, dtype):
    x, kernel, bias, state, d_outputs, d_state = layer(x, kernel, dtype)
    results, residuals = tpu_gradient.conv_lstm_with_residuals(x, kernel, bias, initial_state=state, rows=rows)
    *gradients, peephole = tpu_gradient.conv_lstm_gradient(residuals, d_outputs, d_state, rows=rows)
    assert peephole is None
    assert {a.dtype for a in jax.tree.leaves(results)} == {x.dtype}
    assert [a.dtype for a in gradients[:3]] == [x.dtype, jnp.float32, jnp.float32]
    assert_close((results, tuple(gradients)), in_float64(x, kernel, bias, state, d_outputs, d_state), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_residuals_and_from_zero(dtype):
    x, kernel, bias, _, d_outputs, d_state = layer((8, 3, 4, 8, 2), (3, 3, 2), dtype)
    zeros = jax.tree.map(jnp.zeros_like, d_state)
    results = tpu.conv_lstm(x, kernel, bias, rows=1)
    expected, gradients = in_float64(x, kernel, bias, zeros, d_outputs, d_state)
    assert_close(results, expected, dtype)
    _, residuals = tpu_gradient.conv_lstm_with_residuals(x, kernel, bias, rows=2)
    assert_close(tpu_gradient.conv_lstm_gradient(residuals, d_outputs, d_state)[:4], gradients, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_packed_layout_comes_apart_again(dtype):
    for packing in layout.packings(3, 12, 5, jnp.dtype(dtype)):
        x = jnp.arange(3 * 2 * 2 * 12 * 2, dtype=jnp.float32).reshape(3, 2, 2, 12, 2)
        packed = packing.pack(x)
        assert packed.shape == (2, 2, packing.columns, packing.groups * packing.sublanes, 2)
        # Image 2, column 7: part 7 // columns of it.
        row = 2 * packing.split + 7 // packing.columns
        np.testing.assert_array_equal(packed[1, 0, 7 % packing.columns, row], x[2, 1, 0, 7])
        np.testing.assert_array_equal(packing.unpack(packed), x)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 3])
def test_a_stack_is_its_layers_one_upon_the_other(batch):
    dtype = "bfloat16"
    first = layer((batch, 2, 4, 8, 3), (3, 3, 5), dtype)
    second = layer((batch, 2, 4, 8, 5), (1, 5, 2), dtype, seed=1)
    layers = [(first[1], first[2]), (second[1], second[2])]
    (outputs, states), residuals = stack.conv_lstm_stack_with_residuals(first[0], layers)
    again, states_again = stack.conv_lstm_stack(first[0], layers)
    dx, d_layers = stack.conv_lstm_stack_gradient(residuals, second[4], [first[5], second[5]])

    def plain(x, layers):
        states = []
        for kernel, bias in layers:
            x, state = reference.conv_lstm(x, kernel, bias, initial_state=None)
            states.append(state)
        return x, states

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (first[0], layers))
        expected, pull_back = jax.vjp(plain, *wide)
        gradients = (second[4], [first[5], second[5]])
        gradients = pull_back(jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), gradients))
    assert_close((outputs, states), expected, dtype)
    assert_close((again, states_again), expected, dtype)
    assert_close((dx, d_layers), gradients, dtype)


@pytest.mark.slow
def test_no_races():
    jax.clear_caches()
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")):
        x, kernel, bias, state, d_outputs, d_state = layer((8, 2, 3, 4, 1), (3, 3, 2), "bfloat16")
        _, residuals = tpu_gradient.conv_lstm_with_residuals(x, kernel, bias, initial_state=state, rows=1)
        assert not interpret_pallas_call.races.races_found
        jax.block_until_ready(tpu_gradient.conv_lstm_gradient(residuals, d_outputs, d_state, rows=1))
        assert not interpret_pallas_call.races.races_found


@pytest.mark.slow
def test_values_that_are_not_numbers_stay_where_the_window_carries_them():
    x, kernel, bias, *_ = layer((8, 2, 8, 16, 1), (3, 3, 1), "float32")
    x = x.at[3, 0, 2, 8].set(np.nan)
    outputs, _ = tpu.conv_lstm(x, kernel, bias, rows=2)
    expected, _ = reference.conv_lstm(x, kernel, bias, initial_state=None)
    np.testing.assert_array_equal(np.isnan(outputs), np.isnan(expected))


@pytest.mark.parametrize(
    ("x", "kernel", "more", "words"),
    [
        ((1, 1, 4, 4, 1), (3, 3, 2, 4), {"peephole": (0, 0, 0)}, "no peepholes"),
        ((1, 1, 4, 4, 1), (3, 3, 2, 4), {"rows": 3}, "rows=3"),
        ((8, 1, 512, 512, 64), (3, 3, 128, 256), {}, "MiB of VMEM"),
    ],
)
def test_what_is_not_served_is_refused_with_a_reason(x, kernel, more, words):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (x, kernel, kernel[-1:])]
    with pytest.raises(Refused, match=words):
        jax.eval_shape(lambda *arrays: tpu.conv_lstm(*arrays, **more), *shapes)
    with pytest.raises(Refused, match="float16"):
        jax.eval_shape(tpu.conv_lstm, *(jax.ShapeDtypeStruct(s.shape, jnp.float16) for s in shapes))


@pytest.mark.slow
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    x=st.tuples(*(st.integers(1, most) for most in (9, 3, 7, 12, 4))),
    kernel=st.tuples(*(st.integers(1, most) for most in (5, 5, 4))),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    starts=st.booleans(),
)
def test_any_sizes(x, kernel, dtype, starts):
    x, kernel, bias, state, d_outputs, d_state = layer(x, kernel, dtype, starts=starts)
    results, residuals = tpu_gradient.conv_lstm_with_residuals(x, kernel, bias, initial_state=state)
    gradients = tpu_gradient.conv_lstm_gradient(residuals, d_outputs, d_state)[:4]
    state = jax.tree.map(jnp.zeros_like, d_state) if state is None else state
    assert_close((results, gradients), in_float64(x, kernel, bias, state, d_outputs, d_state), dtype)
