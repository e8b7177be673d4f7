"""The ConvLSTM whose convolutions choose for themselves, against the plain one in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from zoo import kernels
from zoo.kernels import dispatch


def arrays(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) * 0.5 for shape in shapes]


@pytest.mark.parametrize("with_peephole", [False, True])
def test_sequence_and_gradients(with_peephole):
    x, kernel, bias, h, c, *peephole = arrays(
        (2, 3, 5, 4, 3), (3, 3, 7, 16), (16,), (2, 5, 4, 4), (2, 5, 4, 4), *[(5, 4, 4)] * 3
    )
    operands = (x, kernel, bias, (h, c), tuple(peephole) if with_peephole else None)

    def loss(operands, implementation):
        x, kernel, bias, state, peephole = operands
        more = {"initial_state": state, "peephole": peephole, "implementation": implementation}
        outputs, (h, c) = kernels.conv_lstm(x, kernel, bias, **more)
        return (outputs**2).sum() + (h * c).sum()

    with jax.enable_x64(True):
        expected = jax.value_and_grad(loss)(operands, "xla")
        with dispatch.prefer("rewritten", "xla"):  # for the convolutions within
            ours = jax.value_and_grad(loss)(operands, "rewritten")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, expected)


@pytest.mark.parametrize("implementation", ["xla", "rewritten"])
def test_gradients_in_shard_map(implementation):
    """JAX follows what is split and what is shared there, on one device as on many."""
    x, kernel, bias = (jnp.asarray(a, jnp.float32) for a in arrays((2, 3, 5, 4, 3), (3, 3, 7, 16), (16,)))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))

    def loss(kernel, bias, x, name=implementation):
        return (kernels.conv_lstm(x, kernel, bias, implementation=name)[0] ** 2).sum()

    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P(), P("data")))
    def gradients(*operands):
        return jax.grad(lambda *operands: lax.psum(loss(*operands), "data"), (0, 1, 2))(*operands)

    expected = jax.grad(partial(loss, name="xla"), (0, 1, 2))(kernel, bias, x)
    for ours, plain in zip(jax.jit(gradients)(kernel, bias, x), expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_stack():
    x, *layers = arrays((2, 3, 5, 4, 3), (3, 3, 7, 16), (16,), (3, 3, 8, 16), (16,))
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    with jax.enable_x64(True):
        expected = kernels.conv_lstm_stack(x, pairs, implementation="xla")
        ours = kernels.conv_lstm_stack(x, pairs, implementation="rewritten")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, expected)
