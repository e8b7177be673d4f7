"""Every form of rewritten depthwise convolution and pooling against plain lax, gradients in float64, and their cost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.kernels import reference
from zoo.kernels.depthwise import rewritten as depthwise
from zoo.kernels.dispatch import Refused
from zoo.kernels.pool import rewritten as pool

# Of the largest value: sums of up to a few hundred products; bfloat16 is rounded once, at the end.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 1e-2}
CANDIDATES = [
    pytest.param(room, operation, form["form"], id=f"{operation}-{form['form']}")
    for room in (depthwise, pool)
    for operation, forms in room.FORMS.items()
    for form in forms
    if form
]
# Spatial sizes, window, strides, padding.
CASES = {
    "row": ((9,), (3,), (2,), ((1, 0),)),
    "image": ((5, 9), (3, 2), (1, 1), ((1, 1), (1, 0))),
    "image, strided": ((7, 10), (3, 3), (2, 2), ((1, 1), (0, 1))),
    "image, stride above the window": ((8, 9), (2, 1), (3, 3), ((0, 1), (0, 0))),
    "one pixel": ((1, 1), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "frames apart": ((2, 5, 6), (1, 3, 3), (1, 2, 2), ((0, 0), (0, 1), (0, 1))),
    "clip": ((4, 5, 6), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3),
    "clip, strided": ((4, 6, 5), (3, 3, 3), (2, 2, 2), ((0, 1), (0, 1), (1, 1))),
    "clip, whole": ((2, 3, 3), (2, 3, 3), (1, 1, 1), ((0, 0),) * 3),
    "clip, in time": ((5, 3, 2), (4, 1, 1), (3, 1, 1), ((2, 1), (0, 0), (0, 0))),
}


def numbers(seed, shape, dtype):
    """Multiples of a half, so that windows often have their largest value twice."""
    return jnp.asarray(np.round(np.random.default_rng(seed).normal(size=shape) * 2) / 2, dtype)


def call(operation, case, dtype, batch=2, channels=3):
    """The operands and options of an operation, and the public operation that it belongs to."""
    spatial, window, strides, padding = case
    options = {"strides": strides, "padding": padding}
    x, kernel = numbers(0, (batch, *spatial, channels), dtype), numbers(1, (*window, 1, channels), dtype)
    forward = operation.split("_input")[0].split("_weight")[0].split("_gradient")[0]
    if forward != "depthwise_conv":
        options["window"] = window
    of = (x, kernel) if forward == "depthwise_conv" else (x,)
    out = getattr(reference, forward)(*of, **options)
    g = numbers(2, out.shape, dtype)
    if operation == forward:
        return of, options
    if operation == "max_pool_gradient":
        return (x, out, g), options
    if operation == "depthwise_conv_weight_gradient":
        return (x, g), options | {"window": window}
    return ((g, kernel) if forward == "depthwise_conv" else (g,)), options | {"spatial": spatial}


def transposed_input_gradient(g, kernel, *, spatial, **options):
    """By JAX's transposition of the shifted forward pass: XLA's CPU compiler aborts on lax's own at some odd shapes."""
    x = jax.ShapeDtypeStruct((g.shape[0], *spatial, g.shape[-1]), g.dtype)
    return jax.linear_transpose(lambda x: depthwise.depthwise_conv(x, kernel, **options), x)(g)[0]


def transposed_weight_gradient(x, g, *, window, **options):
    kernel = jax.ShapeDtypeStruct((*window, 1, x.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: depthwise.depthwise_conv(x, kernel, **options), kernel)(g)[0]


TRANSPOSED = {
    "depthwise_conv_input_gradient": transposed_input_gradient,
    "depthwise_conv_weight_gradient": transposed_weight_gradient,
}


def check(room, operation, form, case, dtype, batch=2, truth=None):
    if form == "phases" and max(case[2]) == 1:
        return  # refused
    with jax.enable_x64(True):
        operands, options = call(operation, case, dtype, batch)
        got = jax.jit(lambda *a: getattr(room, operation)(*a, **options, form=form))(*operands)
        wide = [a.astype(jnp.float64) for a in operands]
        truth = truth or getattr(reference, operation)
        want = np.asarray(jax.jit(lambda *a: truth(*a, **options))(*wide))
    summed = operation == "depthwise_conv_weight_gradient"
    assert got.dtype == (jnp.promote_types(dtype, jnp.float32) if summed else dtype)
    assert got.shape == want.shape
    worst = np.abs(np.asarray(got, np.float64) - want).max(initial=0)
    assert worst <= TOLERANCE[str(got.dtype)] * max(np.abs(want).max(initial=0), 1)


@pytest.mark.parametrize(("room", "operation", "form"), CANDIDATES)
def test_forms_agree_with_lax(room, operation, form):
    check(room, operation, form, CASES["frames apart" if room is pool else "image, strided"], "float32")


@pytest.mark.slow
@pytest.mark.parametrize(("room", "operation", "form"), CANDIDATES)
def test_forms_agree_with_lax_in_many_cases(room, operation, form):
    """Every other case, the others for the next form; drawn shapes have the rest."""
    first = [each.values for each in CANDIDATES].index((room, operation, form)) % 2
    for number, name in list(enumerate(CASES))[first::2]:
        check(room, operation, form, CASES[name], list(TOLERANCE)[number % 4], batch=1 + number % 3)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "operation", "form"), CANDIDATES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_forms_agree_with_lax_at_any_shape(room, operation, form, data):
    each = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
    axes = data.draw(st.lists(each, min_size=1, max_size=3))
    window = tuple(k for _, k, *_ in axes)
    padding = tuple((min(low, k - 1), min(high, k - 1)) for _, k, _, low, high in axes)
    case = (tuple(max(size, k) for size, k, *_ in axes), window, tuple(s for _, _, s, *_ in axes), padding)
    dtype, batch = data.draw(st.sampled_from(list(TOLERANCE))), data.draw(st.integers(1, 3))
    check(room, operation, form, case, dtype, batch, TRANSPOSED.get(operation))


@pytest.mark.parametrize("form", ["axes", "images"])
def test_nan_and_infinities_come_through_a_max_pool(form):
    x = np.zeros((2, 4, 6, 2), np.float32)
    x[0, 1, 1], x[0, 3, 4], x[0, 0, 5] = np.nan, np.inf, -np.inf
    x[0, 2:, :2] = -np.inf
    how = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))}
    np.testing.assert_array_equal(pool.max_pool(jnp.asarray(x), **how, form=form), reference.max_pool(x, **how))
    dx = pool.max_pool_gradient(jnp.asarray(x), None, jnp.ones((2, 2, 3, 2)), **how, form=form)
    assert dx.sum() == 24  # one element of a window takes all of it, NaN or not


@pytest.mark.parametrize("form", ["axes", "images"])
@pytest.mark.parametrize("name", ["image, strided", "clip"])
def test_padding_takes_nothing_from_a_window_of_minus_infinity(form, name):
    spatial, window, strides, padding = CASES[name]
    how = {"window": window, "strides": strides, "padding": padding}
    x = jnp.full((1, *spatial, 1), -jnp.inf)
    g = jnp.ones(reference.max_pool(x, **how).shape)
    assert pool.max_pool_gradient(x, g, g, **how, form=form).sum() == g.size


def test_integers_are_pooled():
    x = jnp.asarray(np.random.default_rng(0).integers(0, 255, (2, 5, 6, 2)), jnp.uint8)
    how = {"window": (3, 3), "strides": (1, 2), "padding": ((1, 1), (0, 0))}
    for form in ("axes", "images"):
        np.testing.assert_array_equal(pool.max_pool(x, **how, form=form), reference.max_pool(x, **how))


def test_the_derivatives_of_a_weight_gradient_by_rows_are_the_plain_ones():
    with jax.enable_x64(True):
        operands, options = call("depthwise_conv_weight_gradient", CASES["image, strided"], "float64")
        got, want = (
            jax.grad(lambda x, g, f=f: (f(x, g, **options) ** 2).sum(), argnums=(0, 1))(*operands)
            for f in (
                lambda *a, **o: depthwise.depthwise_conv_weight_gradient(*a, **o, form="rows"),
                reference.depthwise_conv_weight_gradient,
            )
        )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("operation", [*depthwise.FORMS, *pool.FORMS])
def test_unknown_forms_are_refused(operation):
    room = depthwise if operation in depthwise.FORMS else pool
    operands, options = call(operation, CASES["image"], "float32")
    with pytest.raises(Refused, match="'winograd'"):
        getattr(room, operation)(*operands, **options, form="winograd")


def test_one_phase_is_refused():
    operands, options = call("depthwise_conv_input_gradient", CASES["image"], "float32")
    with pytest.raises(Refused, match=r"strides \(1, 1\)"):
        depthwise.depthwise_conv_input_gradient(*operands, **options, form="phases")


def _operations(jaxpr):
    """Multiplications, comparisons and maxima of a jaxpr, in values computed; loops count as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("mul", "max", "gt", "eq"):
            total += equation.outvars[0].aval.size
        times = equation.params.get("length", 1)
        inner = (getattr(value, "jaxpr", value) for value in equation.params.values())
        total += sum(times * _operations(each) for each in inner if hasattr(each, "eqns"))
    return total


COUNTED = {
    ("depthwise_conv_weight_gradient", "rows"): (depthwise, 1.05),  # a product for each tap and output, and places
    ("depthwise_conv_input_gradient", "phases"): (depthwise, 1.25),  # no product has a zero of the stride, few edges
    ("depthwise_conv", "images"): (depthwise, 1.0),
    ("max_pool", "images"): (pool, 0.67),  # 2 maxima of twice the outputs, then 2: 6, not 9
}


@pytest.mark.parametrize(("operation", "form"), COUNTED)
def test_forms_do_no_more_work_than_counted(operation, form):
    """Against taps times outputs, which is what plain lax has to compute."""
    room, share = COUNTED[operation, form]
    case = ((32, 32), (3, 3), (2, 2), ((0, 1), (0, 1)))
    operands, options = call(operation, case, "float32", channels=32)
    made = jax.make_jaxpr(lambda *a: getattr(room, operation)(*a, **options, form=form))(*operands)
    assert 0 < _operations(made.jaxpr) <= share * 9 * (2 * 16 * 16 * 32)


def test_memory_stays_small_an_image_at_a_time():
    """What lies between is one image's; lax's own forward pass keeps nothing."""
    case = ((32, 32), (3, 3), (1, 1), ((1, 1), (1, 1)))
    for room, operation in ((depthwise, "depthwise_conv"), (pool, "max_pool"), (pool, "max_pool_gradient")):
        operands, options = call(operation, case, "float32", batch=8, channels=32)
        function = partial(getattr(room, operation), **options, form="images")
        memory = jax.jit(function).lower(*operands).compile().memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes < memory.argument_size_in_bytes + memory.output_size_in_bytes
