"""Kernels through the real TPU compiler: what breaks on hardware for its layout, VMEM or operations breaks here."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from benchmarks.tpu_static import estimate
from zoo import kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler comes with `uv sync --extra tpu`"
)


def with_gradients(function, *operands):
    out, pull = jax.vjp(function, *operands)
    return out, pull(out)


def sequence(x, kernel, bias):
    return kernels.conv_lstm(x, kernel, bias, implementation="pallas_tpu")[0]


def on_tpu(operation, **options):
    return functools.partial(getattr(kernels, operation), **options, implementation="pallas_tpu")


PROGRAMS = {
    "conv2d": (on_tpu("conv"), [(2, 14, 14, 128), (3, 3, 128, 128)]),
    "conv2d strided": (on_tpu("conv", strides=2, padding=((1, 1), (1, 1))), [(2, 15, 13, 64), (3, 3, 64, 128)]),
    "conv3d": (on_tpu("conv"), [(1, 4, 14, 14, 64), (3, 3, 3, 64, 64)]),
    "conv1d": (on_tpu("conv"), [(2, 40, 64), (5, 64, 64)]),
    "fused": (on_tpu("conv_bias_act_pool", window=(2, 2)), [(2, 14, 14, 64), (3, 3, 64, 128), (128,)]),
    "depthwise in time": (on_tpu("depthwise_conv"), [(1, 8, 14, 14, 64), (3, 1, 1, 1, 64)]),
    "max_pool 3x3x3": (on_tpu("max_pool", window=(3, 3, 3), strides=1, padding="SAME"), [(1, 4, 14, 14, 192)]),
    "max_pool 3x3 stride 2": (on_tpu("max_pool", window=(3, 3), strides=2, padding="SAME"), [(2, 28, 28, 64)]),
    "avg_pool": (on_tpu("avg_pool", window=(2, 7, 7), strides=1), [(1, 2, 7, 7, 128)]),
    "conv_lstm": (sequence, [(2, 3, 16, 16, 64), (3, 3, 128, 256), (256,)]),
}


@pytest.mark.parametrize(("chip", "dtype"), [("v5e", "bfloat16"), ("v6e", "float32")])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "max_pool 3x3 stride 2")) for n in PROGRAMS]
)
def test_a_kernel_and_its_gradient_compile(name, chip, dtype):
    function, shapes = PROGRAMS[name]
    operands = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape in shapes]
    assert estimate(functools.partial(with_gradients, function), *operands, chip=chip).microseconds > 0
