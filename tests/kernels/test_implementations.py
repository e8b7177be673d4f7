"""Every implementation of every operation, forward and backward, against plain lax in float64.

The shapes are those of the models (`cases.py`) made small, and drawn ones. Kernels are interpreted as plain JAX, and
one of each in the TPU interpreter, which is slower, looks for races, and fills memory that nobody wrote with NaN.
"""

import contextlib
import functools
import zlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import interpret_pallas_call  # the races that were found are told nowhere else
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tests.kernels.refused import REFUSED, is_refused
from zoo import kernels
from zoo.kernels import dispatch
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.depthwise.cases import CASES as DEPTHWISE
from zoo.kernels.pool.cases import CASES as POOL

# Of the largest value of the result: sums of up to a few hundred products, each rounded in this dtype.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def drawn(shape, seed, ties=False):
    values = np.random.default_rng(seed).normal(size=shape)
    return np.round(values) if ties else values  # rounded, half of all windows have their largest value twice


@contextlib.contextmanager
def as_plain_jax():
    with pltpu.force_tpu_interpret_mode(True):  # pyright: ignore[reportArgumentType]
        yield


@contextlib.contextmanager
def as_a_tpu():
    # Not split over devices: the interpreter calls Python in order, which custom_partitioning does not take.
    alone = mock.patch.object(dispatch, "over_batch", lambda function, operands, *_: function(*operands))
    params = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    with alone, pltpu.force_tpu_interpret_mode(params):
        yield
    races = interpret_pallas_call.races
    assert races is not None
    assert not races.races_found


@contextlib.contextmanager
def noting(implementation):
    """The operations that `implementation` serves, and those that it refuses, a gradient quietly: lax takes it."""
    served, refused = set(), set()
    serve = dispatch._serve

    def note(name, operation, options, operands):
        try:
            out = serve(name, operation, options, operands)
        except dispatch.Refused:
            refused.add(operation)
            raise
        if name == implementation:
            served.add(operation)
        return out

    with mock.patch.object(dispatch, "_serve", note):
        yield served, refused


def check(case_name, operation, shapes, options, implementation, dtype, interpretation):
    """One call and its gradients; an implementation may refuse, but not be wrong.

    Returns the operations that it served and those that it refused.
    """
    function = functools.partial(getattr(kernels, operation), **options)
    seed = zlib.crc32(case_name.encode())
    arrays = [jnp.asarray(drawn(s, seed + i, ties=operation == "max_pool"), dtype) for i, s in enumerate(shapes)]
    with jax.enable_x64(True):
        # What the arrays are worth, not what they were before they were rounded to their dtype.
        wide = [np.asarray(a, np.float64) for a in arrays]
        expected, pull = jax.vjp(functools.partial(function, implementation="xla"), *wide)
        weights = drawn(expected.shape, seed + 9)
        wide_weights = np.asarray(jnp.asarray(weights, dtype), np.float64)
        expected, *expected_gradients = (np.asarray(a) for a in (expected, *pull(wide_weights)))
    with noting(implementation) as (served, refused):
        try:
            with interpretation:
                asked = functools.partial(function, implementation=implementation)
                out, pull = jax.vjp(jax.jit(asked), *arrays)
                gradients = jax.jit(pull)(jnp.asarray(weights, dtype))
        except ValueError as error:
            if "nothing asked for serves" not in str(error):
                raise
            return served, refused
    names = ["result", *(f"gradient of operand {i}" for i in range(len(arrays)))]
    for name, ours, theirs in zip(names, (out, *gradients), (expected, *expected_gradients), strict=True):
        assert ours.dtype == dtype
        scale = np.abs(theirs).max() + 1e-30
        worst = np.abs(np.asarray(ours, np.float64) - theirs).max() / scale
        assert worst <= TOLERANCE[dtype], f"{case_name}: {name} of {implementation} is off by {worst:.2g}"
    return served, refused


def small(case):
    """A case's windows, strides and padding on one or two images of a few pixels and channels."""
    x, *others = case.shapes
    axes = len(case.options.get("window", ())) or len(others[0]) - 2
    if case.operation == "conv_bias_act_pool":
        axes = len(others[0]) - 2
    channels = {c: max(1, c // 16) if c > 4 else c for c in {x[-1], *(c for o in others for c in o[-2:])}}
    spatial = tuple(min(size, 8 if size % 2 == 0 else 7) for size in x[-axes - 1 : -1])
    kernels_and_biases = [(*o[:-2], *(channels.get(c, c) for c in o[-2:])) for o in others]
    return ((2, *spatial, channels[x[-1]]), *kernels_and_biases)


# Made small, each is the same program, primitive by primitive and in the same dtype, as r3d's layer 1, 2 or 3 or
# resnet's layer 1 or 3. Their own shapes are in the test of what is refused.
REPEATED = {"i3d conv 2c", "i3d mixed 3b branch 1", "i3d mixed 4d branch 1", "resnet layer 2"}


def grid():
    for case in (*CONV, *DEPTHWISE, *POOL):
        if case.name in REPEATED:
            continue
        for implementation in ("rewritten", "pallas_tpu"):
            there = implementation in dispatch.OPERATIONS[case.operation].modules
            if there and not is_refused(implementation, case.operation, case.name):
                dtype = list(TOLERANCE)[len(case.name) % 2]  # one or the other: the drawn calls have both
                yield pytest.param(case, implementation, dtype, id=f"{implementation}-{case.name}-{dtype}")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "implementation", "dtype"), list(grid()))
def test_a_model_s_case(case, implementation, dtype):
    served, refused = check(case.name, case.operation, small(case), case.options, implementation, dtype, as_plain_jax())
    assert case.operation in served
    # Made small, some gradients fit that do not otherwise.
    assert {operation for operation in refused if not is_refused(implementation, operation, case.name)} == set()


def untraced(kernel, *, out_shape, **options):
    """In place of a kernel's call: what is refused is told before it, and tracing the kernels takes a minute."""
    del kernel, options
    return lambda *operands: jax.tree.map(lambda result: jnp.zeros(result.shape, result.dtype), out_shape)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["rewritten", "pallas_tpu", "pallas_gpu"])
def test_what_is_refused_at_the_models_own_shapes_is_known(implementation):
    found: dict[str, set[str]] = {}
    for case in (*CONV, *DEPTHWISE, *POOL):
        if implementation not in dispatch.OPERATIONS[case.operation].modules:
            continue
        asked = functools.partial(getattr(kernels, case.operation), **case.options, implementation=implementation)
        arrays = [jax.ShapeDtypeStruct(shape, jnp.dtype(case.dtype)) for shape in case.shapes]
        with noting(implementation) as (_, refused), mock.patch.object(pl, "pallas_call", untraced):
            try:
                jax.eval_shape(functools.partial(with_gradients, asked), *arrays)
            except ValueError as error:
                if "nothing asked for serves" not in str(error):
                    raise
        for operation in refused:
            if implementation in dispatch.OPERATIONS[operation].modules:
                found.setdefault(operation, set()).add(case.name)
    assert found == {operation: names for (name, operation), names in REFUSED.items() if name == implementation}


def with_gradients(function, *arrays):
    out, pull = jax.vjp(function, *arrays)
    return out, pull(out)


# One case for every kernel, in as few steps of its grid as show what it carries from one to the next.
ON_A_TPU = {
    "conv": ([(1, 6, 5, 8), (3, 3, 8, 8)], {"strides": 1}),
    "conv of few channels": ([(1, 8, 8, 3), (3, 3, 3, 8)], {"strides": 2}),
    "conv_bias_act_pool": ([(1, 4, 4, 8), (3, 3, 8, 8), (8,)], {"window": (2, 2)}),
    "depthwise_conv": ([(1, 4, 2, 8, 8), (3, 1, 1, 1, 8)], {}),
    "depthwise_conv of images": ([(1, 5, 5, 8), (3, 3, 1, 8)], {}),
    "max_pool": ([(1, 3, 4, 4, 8)], {"window": (3, 3, 3), "strides": 1, "padding": "SAME"}),
    "avg_pool": ([(1, 5, 5, 8)], {"window": (3, 3), "strides": 2, "padding": "SAME"}),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "max_pool")) for n in ON_A_TPU])
def test_a_kernel_has_no_races_and_reads_nothing_unwritten(name):
    shapes, options = ON_A_TPU[name]
    served, _ = check(name, name.split()[0], shapes, options, "pallas_tpu", "float32", as_a_tpu())
    assert name.split()[0] in served


@st.composite
def calls(draw):
    """An operation with small odd shapes: any strides, dilation, padding and groups, one pixel, one image."""
    operation = draw(st.sampled_from(["conv", "depthwise_conv", "max_pool", "avg_pool"]))
    axes = draw(st.integers(1, 3))
    each = functools.partial(st.lists, min_size=axes, max_size=axes)
    spatial = draw(each(st.integers(1, 9)))
    window = [draw(st.integers(1, min(size + 1, 5))) for size in spatial]
    strides = draw(each(st.integers(1, 3)))
    pads = [(draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))) for size in window]
    padding = draw(st.sampled_from(["SAME", tuple(pads)]))
    batch, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 6, 130]))
    shapes = [(batch, *spatial, channels)]
    options = {"strides": tuple(strides), "padding": padding}
    if operation.endswith("pool"):
        options["window"] = tuple(window)
    elif operation == "depthwise_conv":
        shapes.append((*window, 1, channels))
    else:
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        options["groups"] = groups
        options["dilation"] = tuple(draw(each(st.sampled_from([1, 1, 2]))))
        shapes.append((*window, channels // groups, groups * draw(st.sampled_from([1, 4]))))
    return operation, shapes, options


def fits(operation, shapes, options):
    try:
        jax.eval_shape(
            functools.partial(getattr(kernels, operation), implementation="xla", **options),
            *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes),
        )
    except ValueError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["rewritten", "pallas_tpu"])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(calls(), st.sampled_from(list(TOLERANCE)))
def test_any_small_call(implementation, call, dtype):
    operation, shapes, options = call
    assume(fits(operation, shapes, options))
    served, _ = check(f"{call}", operation, shapes, options, implementation, dtype, as_plain_jax())
    assume(operation in served)  # hypothesis fails the test if too few are
