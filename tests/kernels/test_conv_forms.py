"""Every form of rewritten convolution against plain lax, gradients in float64, and what work and memory it takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import kernels
from zoo.kernels import reference
from zoo.kernels.conv import rewritten
from zoo.kernels.dispatch import Refused

# Of the largest value: sums of up to a few hundred products; narrow dtypes are rounded once, at the end.
TOLERANCE = {"float64": 1e-12, "float32": 4e-6, "float16": 1e-3, "bfloat16": 1e-2}
# Blocks of so few outputs cut every case below along another axis: row, frame, image, or not at all.
PIXELS = (3, 14, 40, None)
CANDIDATES = sorted({(operation, each["form"]) for operation, forms in rewritten.FORMS.items() for each in forms})
# Spatial sizes, window, strides, padding, dilation, groups.
CASES = {
    "row": ((9,), (3,), (2,), ((1, 0),), (1,), 1),
    "row, dilated": ((13,), (4,), (3,), ((2, 1),), (2,), 1),
    "image": ((5, 9), (3, 3), (1, 1), ((1, 1), (1, 0)), (1, 1), 1),
    "image, strided": ((7, 10), (3, 3), (2, 2), ((1, 1), (0, 1)), (1, 1), 1),
    "image, grouped": ((7, 6), (3, 3), (1, 1), ((1, 1), (0, 1)), (1, 1), 2),
    "image, grouped, strided": ((7, 6), (3, 3), (2, 2), ((1, 1), (0, 1)), (1, 1), 2),
    "image, stride above the window": ((8, 9), (2, 2), (3, 4), ((0, 1), (1, 0)), (1, 1), 1),
    "image, stride and dilation": ((11, 12), (3, 4), (4, 6), ((2, 1), (3, 2)), (2, 4), 1),
    "image, much padding": ((4, 5), (3, 3), (1, 1), ((4, 0), (0, 5)), (1, 1), 1),
    "one pixel": ((1, 1), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "1x1": ((5, 6), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "1x1, strided": ((5, 6), (1, 1), (2, 3), ((0, 1), (2, 0)), (1, 1), 2),
    "stem": ((12, 13), (7, 7), (2, 2), ((3, 3), (2, 3)), (1, 1), 1),
    "clip": ((4, 5, 6), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1), 1),
    "clip, strided": ((4, 6, 5), (3, 3, 3), (2, 2, 2), ((0, 1), (1, 1), (1, 1)), (1, 1, 1), 2),
    "clip, strided in time": ((5, 5, 6), (3, 3, 3), (2, 1, 1), ((1, 1),) * 3, (1, 1, 1), 1),
    "frames": ((3, 5, 6), (1, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1)), (1, 1, 1), 1),
    "frames, strided": ((5, 5, 6), (1, 3, 3), (2, 2, 2), ((0, 0), (1, 1), (1, 1)), (1, 1, 1), 1),
    "in time": ((5, 3, 2), (3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1), 1),
    "in time, strided": ((7, 3, 4), (4, 1, 1), (3, 1, 2), ((2, 1), (0, 0), (0, 1)), (1, 1, 1), 1),
}
# A case that each form serves, for the tests that are not slow.
OF_FORM = {
    "product": "1x1, strided",
    "im2col": "image, grouped, strided",
    "taps": "clip, strided",
    "winograd": "clip",
    "frames": "clip",
    "phases": "image, strided",
    "rule": "image, grouped",
}


@pytest.fixture(autouse=True)
def few_channels(monkeypatch):
    """Products for each tap are refused for as few channels as tests have."""
    monkeypatch.setattr(rewritten, "_LEAST_CHANNELS", 1)


def call(operation, case, dtype, batch=2, channels=6, features=4, seed=0):
    """The operands and options of an operation."""
    spatial, window, strides, padding, dilation, groups = case
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.normal(size=(batch, *spatial, channels)), dtype)
    kernel = jnp.asarray(random.normal(size=(*window, channels // groups, features)), dtype)
    out = jax.eval_shape(partial(reference.conv, **options), x, kernel)
    g = jnp.asarray(random.normal(size=out.shape), dtype)
    if operation == "conv":
        return (x, kernel), options
    if operation == "conv_input_gradient":
        return (g, kernel), options | {"spatial": spatial}
    return (x, g), options | {"window": window}


def check(operation, case, dtype, form, pixels, batch=2, **sizes):
    """Whether a form serves a case, and, if so, is right."""
    with jax.enable_x64(True):
        operands, options = call(operation, case, dtype, batch, **sizes)
        function = partial(getattr(rewritten, operation), **options, form=form, pixels=pixels)
        try:
            got = jax.jit(function)(*operands)
        except Refused:
            return False
        wide = [np.asarray(a, np.float64) for a in operands]
        want = np.asarray(jax.jit(partial(getattr(reference, operation), **options))(*wide))
    assert got.dtype == (jnp.promote_types(dtype, jnp.float32) if operation == "conv_weight_gradient" else dtype)
    assert got.shape == want.shape
    worst = np.abs(np.asarray(got, np.float64) - want).max(initial=0)
    # Form None may fold rows, which rounds weight gradients to x's dtype as lax does; the others keep them wide.
    tolerance = TOLERANCE[dtype if form is None else str(got.dtype)]
    assert worst <= tolerance * max(np.abs(want).max(initial=0), 1)
    return True


@pytest.mark.parametrize(("operation", "form"), CANDIDATES)
def test_forms_agree_with_lax(operation, form):
    assert check(operation, CASES[OF_FORM[form]], "float32", form, 14)


@pytest.mark.parametrize("operation", ["conv", "conv_weight_gradient"])
def test_many_channels_are_gathered_at_once(operation):
    assert check(operation, CASES["image, strided"], "float32", "im2col", 14, channels=16)


ALL = [*CANDIDATES, *((operation, None) for operation in rewritten.FORMS)]


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "form"), ALL)
def test_forms_agree_with_lax_in_many_cases(operation, form):
    """Every third case, another third for each form; drawn shapes have the rest."""
    first = ALL.index((operation, form)) % 3
    for number, name in list(enumerate(CASES))[first::3]:
        check(operation, CASES[name], list(TOLERANCE)[number % 4], form, PIXELS[number % 3], batch=1 + number % 3)


@pytest.mark.slow
@pytest.mark.parametrize("operation", rewritten.FORMS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_forms_agree_with_lax_at_any_shape(operation, data):
    numbers = [st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)]
    numbers += [st.integers(0, 3), st.integers(0, 3)]
    axes = data.draw(st.lists(st.tuples(*numbers), min_size=1, max_size=3))
    size, window, strides, dilation, low, high = zip(*axes, strict=True)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    spatial = tuple(max(n, r - a - b, 1) for n, r, a, b in zip(size, reach, low, high, strict=True))
    case = (spatial, window, strides, tuple(zip(low, high, strict=True)), dilation, data.draw(st.integers(1, 2)))
    form = data.draw(st.sampled_from([None, *sorted({each["form"] for each in rewritten.FORMS[operation]})]))
    dtype, pixels = data.draw(st.sampled_from(list(TOLERANCE))), data.draw(st.sampled_from(PIXELS))
    check(operation, case, dtype, form, pixels, data.draw(st.integers(1, 3)))


@pytest.mark.slow
def test_transposed_convolution_and_its_gradients():
    random = np.random.default_rng(0)
    x, kernel = jnp.asarray(random.normal(size=(2, 4, 5, 8))), jnp.asarray(random.normal(size=(4, 4, 8, 6)))
    with jax.enable_x64(True):
        results = []
        for name in ("xla", "rewritten"):
            function = partial(kernels.conv_transpose, strides=2, implementation=name)
            out, pull = jax.vjp(jax.jit(function), x, kernel)
            results.append((out, *pull(jnp.cos(out))))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_second_derivatives_are_lax_s():
    with jax.enable_x64(True):
        operands, options = call("conv", CASES["image"], "float64")
        got, want = (
            jax.grad(lambda x, k, f=f: (f(x, k, **options) ** 2).sum(), argnums=(0, 1))(*operands)
            for f in (partial(rewritten.conv, form="im2col", pixels=14), reference.conv)
        )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("form", ["im2col", "taps", "phases"])
def test_infinities_reach_what_saw_them_and_nothing_else(form):
    """Blocks have outputs beyond the end, and phases pixels that no output saw."""
    spatial, window, strides, padding, dilation, groups = CASES["image, strided"]
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    x, kernel = jnp.ones((1, *spatial, 4)).at[0, -1, -1].set(jnp.inf), jnp.ones((*window, 4, 4))

    def both(operation, *operands, **more):
        how = options | more
        got = jax.jit(partial(getattr(rewritten, operation), **how, form=form, pixels=14))(*operands)
        want = jax.jit(partial(getattr(reference, operation), **how))(*operands)
        np.testing.assert_array_equal(got, want)
        return want

    if form == "phases":
        g = jax.jit(partial(reference.conv, **options))(x, kernel)
        both("conv_input_gradient", g, kernel, spatial=spatial)
    else:
        g = jnp.ones(both("conv", x, kernel).shape)
        both("conv_weight_gradient", x, g, window=window)


@pytest.mark.parametrize(
    ("operation", "name", "form", "message"),
    [
        ("conv", "image", "phases", "no form 'phases'"),
        ("conv_weight_gradient", "image", "frames", "no form 'frames'"),
        ("conv_weight_gradient", "image, strided", "winograd", r"strides=\(2, 2\)"),
        ("conv", "1x1", "im2col", r"window \(1, 1\)"),
        ("conv", "image", "product", r"window \(3, 3\)"),
        ("conv", "image, strided", "winograd", r"strides=\(2, 2\)"),
        ("conv", "image", "frames", "for 3D"),
        ("conv", "clip, strided", "frames", "groups=2"),
        ("conv_input_gradient", "image", "phases", r"strides=\(1, 1\)"),
    ],
)
def test_what_a_form_does_not_serve_it_refuses(operation, name, form, message):
    operands, options = call(operation, CASES[name], "float32")
    with pytest.raises(Refused, match=message):
        getattr(rewritten, operation)(*operands, **options, form=form)


def test_refusals_of_sizes(monkeypatch):
    operands, options = call("conv", ((9, 9), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1), "float32", channels=2)
    monkeypatch.setattr(rewritten, "_LEAST_CHANNELS", 16)
    with pytest.raises(Refused, match="not 2"):
        rewritten.conv(*operands, **options, form="taps")
    with pytest.raises(Refused, match="outputs=4"):
        rewritten.conv(*operands, **options, form="im2col", outputs=4)
    operands, options = call("conv", ((20, 20), (19, 19), (1, 1), ((0, 0), (0, 0)), (1, 1), 1), "float32")
    with pytest.raises(Refused, match=r"\(19, 19\)"):
        rewritten.conv(*operands, **options, form="im2col")
    operands, options = call("conv_input_gradient", ((9, 9), (2, 2), (6, 6), ((0, 0), (0, 0)), (1, 1), 1), "float32")
    with pytest.raises(Refused, match=r"strides \(6, 6\)"):
        rewritten.conv_input_gradient(*operands, **options, form="im2col")
    operands, options = call("conv", CASES["image"], "float32", batch=0)
    with pytest.raises(Refused, match=r"\[0, 5, 9, 6\]"):
        rewritten.conv(*operands, **options, form="im2col")


def _products(jaxpr):
    """Multiplications of matrix products and convolutions in a jaxpr; loops count as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        out = equation.outvars[0].aval
        if equation.primitive.name == "dot_general":
            ((contracted, _), _), x = equation.params["dimension_numbers"], equation.invars[0].aval
            total += out.size * np.prod([x.shape[axis] for axis in contracted], dtype=int)
        elif equation.primitive.name == "conv_general_dilated":
            numbers, kernel = equation.params["dimension_numbers"], equation.invars[1].aval
            total += out.size * kernel.size // kernel.shape[numbers.rhs_spec[0]]
        times = equation.params.get("length", 1)
        inner = (value for each in equation.params.values() for value in (each if isinstance(each, tuple) else (each,)))
        inner = (getattr(value, "jaxpr", value) for value in inner)
        total += sum(times * _products(each) for each in inner if hasattr(each, "eqns"))
    return total


STRIDED = ((16, 16), (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), 1)
PLAIN = ((16, 16), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
GROUPED = (*PLAIN[:-1], 4)
CLIP = ((4, 8, 8), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1), 1)


@pytest.mark.parametrize(
    ("operation", "form", "case", "share"),
    [
        ("conv", "im2col", PLAIN, 1.0),
        ("conv", "taps", STRIDED, 1.0),
        ("conv", "winograd", PLAIN, 16 / 36),
        ("conv", "winograd", CLIP, 16 / 36),
        ("conv_input_gradient", "winograd", PLAIN, 16 / 36),
        ("conv_weight_gradient", "winograd", PLAIN, 16 / 36),
        ("conv_weight_gradient", "winograd", CLIP, 16 / 36),
        ("conv", "frames", CLIP, 1.0),
        ("conv_input_gradient", "im2col", STRIDED, 1.0),  # no product has a zero of the stride
        ("conv_input_gradient", "phases", STRIDED, 1.0),
        ("conv_weight_gradient", "im2col", PLAIN, 1.0),
        ("conv_weight_gradient", "im2col", GROUPED, 1.0),  # of a group's channels alone
        ("conv", "im2col", GROUPED, 1.0),
        ("conv_input_gradient", "taps", GROUPED, 1.0),
    ],
)
def test_forms_do_no_more_products_than_counted(operation, form, case, share):
    """Against taps times channels times outputs, which is what plain lax has to compute."""
    operands, options = call(operation, case, "float32", channels=16, features=16)
    made = jax.make_jaxpr(partial(getattr(rewritten, operation), **options, form=form, pixels=64))(*operands)
    (forward, kernel), _ = call("conv", case, "float32", channels=16, features=16)
    _, of_plain = call("conv", case, "float32", channels=16, features=16)
    outputs = jax.eval_shape(partial(reference.conv, **of_plain), forward, kernel)
    direct = outputs.size * kernel.size // kernel.shape[-1]
    assert 0 < _products(made.jaxpr) <= share * direct * 1.01


@pytest.mark.parametrize(("operation", "form"), CANDIDATES)
def test_memory_stays_within_that_of_operands_and_result(operation, form):
    case = {"winograd": PLAIN, "frames": CLIP, "product": ((16, 16), (1, 1), (2, 2), ((0, 0),) * 2, (1, 1), 1)}
    case = case.get(form, STRIDED)
    operands, options = call(operation, case, "float32", batch=16, channels=32, features=32)
    function = partial(getattr(rewritten, operation), **options, form=form, pixels=64)
    memory = jax.jit(function).lower(*operands).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.6 * (memory.argument_size_in_bytes + memory.output_size_in_bytes)
