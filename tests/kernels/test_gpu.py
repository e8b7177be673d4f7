"""GPU kernels: right and free of races in JAX's interpreter, compiled for GPUs that are not there, run where one is.

The interpreter reads no im2col copies, so it sees the convolution with its windows cut out beforehand: everything but
the copy engine's own addressing. That is for the test on hardware.
"""

import functools
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic_gpu.interpret.interpret_pallas_call import get_races, reset_gpu_interpret_mode_state
from jax.experimental.pallas import mosaic_gpu as plgpu

from tests.kernels.refused import is_refused
from zoo import kernels
from zoo.kernels import reference
from zoo.kernels.conv import gpu as conv_gpu
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.dispatch import Refused
from zoo.kernels.pallas_gpu import interpret
from zoo.kernels.pool import gpu as pool_gpu
from zoo.kernels.pool.cases import CASES as POOL

# Of the largest value: sums of up to a few hundred products, in bfloat16 rounded once at the end.
TOLERANCE = {"float32": 2e-6, "bfloat16": 8e-3}
PLAIN = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


def drawn(shape, dtype="bfloat16", seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def interpreted(function, *arrays):
    with interpret(plgpu.InterpretGPUParams(detect_races=True)):
        out = jax.block_until_ready(jax.jit(function)(*arrays))
    assert not get_races().races_found
    return out


def assert_close(ours, theirs, dtype):
    """Against plain lax of the same values in float32."""
    assert ours.shape == theirs.shape
    assert ours.dtype == dtype
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    assert np.abs(ours - theirs).max() <= TOLERANCE[dtype] * np.abs(theirs).max()


def check_pool(x, **options):
    dtype = str(x.dtype)
    wide = x.astype(jnp.float32)
    for operation in ("max_pool", "avg_pool"):
        plain = {name: value for name, value in options.items() if name != "columns"}
        expected = getattr(reference, operation)(wide, **plain)
        ours = interpreted(functools.partial(getattr(pool_gpu, operation), **options), x)
        if operation == "max_pool":
            np.testing.assert_array_equal(np.asarray(ours, np.float32), expected)
        else:
            assert_close(ours, expected, dtype)


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        # Two images do not fill three's tile: the last is done twice, by one block.
        ((3, 4, 5, 64), "bfloat16", {"window": (3, 3), "strides": (2, 2), "padding": ((1, 1), (0, 1))}),
        ((4, 2, 3, 4, 32), "float32", {"window": (2, 3, 3), "strides": (1, 1, 1), "padding": ((1, 0), (1, 1), (1, 1))}),
        # Wider strides than windows; one-pixel images; a row that several blocks share.
        ((16, 5, 8), "float32", {"window": (1,), "strides": (3,), "padding": ((0, 0),)}),
        ((1, 1, 1, 128), "bfloat16", {"window": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}),
        ((1, 2, 9, 128), "float32", {"window": (2, 3), "strides": (1, 1), "padding": ((0, 0), (1, 1)), "columns": 4}),
        # Frames that are not pooled over are batch, rows that are not are channels.
        ((1, 2, 2, 2, 64), "bfloat16", {"window": (1, 2, 1), "strides": (1, 2, 1), "padding": ((0, 0),) * 3}),
    ],
)
def test_pooling(shape, dtype, options):
    check_pool(drawn(shape, dtype), **options)


@st.composite
def poolings(draw):
    axes = draw(st.integers(1, 2))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    spatial = tuple(draw(st.integers(k, k + 3)) for k in window)
    strides = tuple(draw(st.integers(1, 4)) for _ in window)
    batch, channels = draw(st.sampled_from([(1, 128), (5, 64), (2, 192), (9, 24)]))
    return (batch, *spatial, channels), {"window": window, "strides": strides, "padding": padding}


def drawn_pooling(case):
    shape, options = case
    try:
        check_pool(drawn(shape, "float32", seed=sum(shape)), **options)
    except Refused:
        assert shape[0] == 9  # and that only when its 24 channels are not among a few pixels'


test_drawn_pooling = settings(max_examples=4, deadline=None, derandomize=True)(given(poolings())(drawn_pooling))
test_more_drawn_pooling = pytest.mark.slow(
    settings(max_examples=25, deadline=None, derandomize=True)(given(poolings())(drawn_pooling))
)


def test_what_stands_in_for_padding_is_not_counted():
    x = np.zeros((1, 4, 128), np.float32)
    x[0, 0], x[0, 2, 0] = np.inf, np.nan
    options = {"window": (3,), "strides": (1,), "padding": ((2, 1),)}
    for operation in ("max_pool", "avg_pool"):
        ours = interpreted(functools.partial(getattr(pool_gpu, operation), **options), x)
        np.testing.assert_array_equal(ours, getattr(reference, operation)(x, **options))


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        # Several steps more than slots, rows past the last image.
        ((1, 5, 7, 64), (3, 3, 64, 64), {}),
        # One step; several tiles of pixels and of features; a last tile with nothing for its second half.
        ((2, 9, 11, 64), (1, 1, 64, 128), {"padding": ((0, 0), (0, 0)), "pixels": 128, "features": 64}),
        # Channels in part of a step, dilation, a window that is not square, padding to one side.
        ((1, 5, 6, 72), (2, 3, 72, 128), {"padding": ((0, 2), (3, 0)), "dilation": (2, 1), "features": 128}),
        ((1, 1, 1, 8), (3, 3, 8, 64), {}),
    ],
)
def test_convolution(shape, kernel, options):
    x, kernel = drawn(shape), drawn(kernel, seed=1)
    options = PLAIN | options
    plain = {name: options[name] for name in PLAIN}
    expected = reference.conv(x.astype(jnp.float32), kernel.astype(jnp.float32), **plain)
    options |= {"pixels": options.get("pixels", 128), "features": options.get("features", 64)}
    assert_close(interpreted(functools.partial(conv_gpu.conv, **options), x, kernel), expected, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize(("pixels", "features"), conv_gpu.TILES)
def test_convolution_in_tiles_of_all_sizes(axes, pixels, features):
    x, kernel = drawn((2, *(5, 6, 7)[-axes:], 64)), drawn((*(3,) * axes, 64, 256), seed=1)
    options = {"strides": (1,) * axes, "padding": ((1, 1),) * axes, "dilation": (1,) * axes, "groups": 1}
    expected = reference.conv(x.astype(jnp.float32), kernel.astype(jnp.float32), **options)
    ours = interpreted(functools.partial(conv_gpu.conv, **options, pixels=pixels, features=features), x, kernel)
    assert_close(ours, expected, "bfloat16")


def test_results_vary_over_a_mesh_as_operands_do():
    """Else gradients within shard_map would be summed over devices that hold other images."""

    def one_device(x):
        out = pool_gpu.max_pool(x, window=(2,), strides=(2,), padding=((0, 0),))
        assert jax.typeof(out).manual_axis_type.varying == jax.typeof(x).manual_axis_type.varying == {"batch"}
        return out

    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")
    jax.eval_shape(jax.shard_map(one_device, mesh=mesh, in_specs=spec, out_specs=spec), drawn((2, 4, 128)))


@pytest.mark.parametrize("broken", ["commit_smem", "wait_for_a_free_slot"])
def test_the_interpreter_sees_races(broken, monkeypatch):
    """Kernels that forget to wait are caught, so that silence about the others means something."""
    if broken == "commit_smem":
        monkeypatch.setattr(plgpu, "commit_smem", lambda: None)
    else:
        # The first wait in the program is the copying warpgroup's, until a slot has been read.
        waits = itertools.chain([lambda barrier: None], itertools.repeat(plgpu.barrier_wait))
        monkeypatch.setattr(plgpu, "barrier_wait", lambda barrier: next(waits)(barrier))
    x, kernel = drawn((1, 5, 7, 64)), drawn((3, 3, 64, 64), seed=1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RACE DETECTED"):
        interpreted(functools.partial(conv_gpu.conv, **PLAIN), x, kernel)
    reset_gpu_interpret_mode_state()


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((8, 4, 4, 12), {}, "multiples of 8, got 12"),
        ((1, 4, 4, 64), {}, "got 1 images of 64 channels"),
        ((8, 4, 4, 64), {"padding": ((0, 2), (0, 0))}, r"smaller than the window, got \(0, 2\)"),
        ((8, 64, 64, 64), {"window": (12, 12)}, r"up to 128 pixels, got \(12, 12\)"),
        ((0, 4, 4, 64), {}, "nothing to compute"),
        ((32, 1024, 1024, 64), {}, "32 bits, got 2147483648"),
    ],
)
def test_pooling_refuses(shape, change, words):
    options = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))} | change
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    with pytest.raises(Refused, match=words):
        jax.eval_shape(functools.partial(pool_gpu.max_pool, **options), x)
    with pytest.raises(Refused, match="float16"):
        jax.eval_shape(functools.partial(pool_gpu.avg_pool, **options), x.update(shape=(8, 4, 4, 64), dtype=np.float16))


@pytest.mark.parametrize(
    ("shape", "kernel", "change", "words"),
    [
        ((1, 8, 8, 64), (3, 3, 64, 64), {"strides": (2, 1)}, r"strides of 1, got \(2, 1\)"),
        ((1, 8, 8, 64), (3, 3, 32, 64), {"groups": 2}, "groups=1, got 2"),
        ((1, 8, 8, 12), (3, 3, 12, 64), {}, "multiples of 8, got 12"),
        ((1, 8, 8, 64), (3, 3, 64, 96), {}, "multiples of 64, got 96"),
        ((1, 8, 8, 64), (3, 3, 64, 64), {"padding": ((129, 1), (1, 1))}, "padding 129, 1 in 2 dim"),
        ((0, 8, 8, 64), (3, 3, 64, 64), {}, "nothing to compute"),
    ],
)
def test_convolution_refuses(shape, kernel, change, words):
    arrays = jax.ShapeDtypeStruct(shape, jnp.bfloat16), jax.ShapeDtypeStruct(kernel, jnp.bfloat16)
    with pytest.raises(Refused, match=words):
        jax.eval_shape(functools.partial(conv_gpu.conv, **PLAIN | change), *arrays)
    with pytest.raises(Refused, match="float32"):
        jax.eval_shape(functools.partial(conv_gpu.conv, **PLAIN), arrays[0].update(dtype=np.float32), arrays[1])


def test_convolution_refuses_other_gpus(monkeypatch):
    monkeypatch.setattr(conv_gpu, "capability", lambda: "8.0")
    with pytest.raises(Refused, match=r"for Hopper, .* here is 8.0"):
        conv_gpu.conv(drawn((1, 4, 4, 64)), drawn((3, 3, 64, 64)), **PLAIN)


# A folder where the plugin is installed for this test alone: in the environment itself it complains, whenever JAX
# starts, of libraries that only a GPU needs.
PLUGIN = os.environ.get("ZOO_CUDA_PLUGIN", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not PLUGIN and importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="needs jax-cuda13-plugin and jax-cuda13-pjrt, installed or in the folder that ZOO_CUDA_PLUGIN names",
)
@pytest.mark.parametrize(
    ("target", "least"),
    [("h100", {"max_pool": 16, "avg_pool": 2, "conv": 19}), ("a100", {"max_pool": 16, "avg_pool": 2})],
)
def test_compiles_without_spills(target, least):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "MOSAIC_GPU_DUMP_PTX": "1",
        "MOSAIC_GPU_DUMP_PTXAS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [PLUGIN, os.environ.get("PYTHONPATH")])),
    }
    script = Path(__file__).with_name("gpu_compile.py")
    run = subprocess.run([sys.executable, script, target], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    counts = dict.fromkeys(least, 0)
    for report in run.stdout.split("== ")[1:]:
        operation, name = report.splitlines()[0].split(" ", 1)
        if "refused: " in report:
            continue
        counts[operation] += 1
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert spills, f"{operation} {name}: the assembler said nothing"
        assert all(int(n) == 0 for spill in spills for n in spill), f"{operation} {name}: {spills}"
        if operation == "conv":
            for instruction in ("global.im2col", "wgmma.mma_async", "setmaxnreg"):
                assert instruction in report, f"{name} without {instruction}"
            # ptxas's words when it cannot keep matrix instructions in flight.
            assert "serialized" not in report, name
    assert all(counts[operation] >= number for operation, number in least.items()), counts


ON_HARDWARE = [
    case
    for case in (*POOL, *CONV)
    if case.operation in ("max_pool", "avg_pool", "conv") and not is_refused("pallas_gpu", case.operation, case.name)
]


@pytest.mark.gpu
@pytest.mark.parametrize("case", ON_HARDWARE, ids=lambda case: f"{case.operation} {case.name}")
def test_on_a_gpu(case):
    """Asked for by `pytest -m gpu`, which fails where there is no GPU."""
    gpu = jax.devices("gpu")[0]
    function = functools.partial(getattr(kernels, case.operation), **case.options)
    arrays = [jax.device_put(drawn(shape, case.dtype, seed=i), gpu) for i, shape in enumerate(case.shapes)]
    ours = jax.jit(functools.partial(function, implementation="pallas_gpu"))(*arrays)
    wide = [array.astype(jnp.float32) for array in arrays]
    with jax.default_matmul_precision("highest"):
        theirs = jax.jit(functools.partial(function, implementation="xla"))(*wide)
    assert_close(ours, theirs, case.dtype)
