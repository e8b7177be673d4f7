"""Run by test_over_batch.py in a process of its own, on eight virtual devices: kernels under sharding, map and scan."""

import functools
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from zoo import kernels

KERNEL = functools.partial(kernels.depthwise_conv, implementation="pallas_tpu")
PLAIN = functools.partial(kernels.depthwise_conv, implementation="xla")


def loss(convolve, x, kernel):
    return jnp.sin(convolve(x, kernel)).sum()


def results(convolve, x, kernel):
    return convolve(x, kernel), *jax.grad(functools.partial(loss, convolve), (0, 1))(x, kernel)


def close(ours, theirs):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), ours, theirs)


def gathered(compiled, shape):
    """Whether any instruction of the program has the whole batch on one device."""
    return f"f32[{','.join(map(str, shape))}]" in compiled.as_text()


def main():
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 4, 2, 3, 8)).astype(np.float32)
    kernel = random.normal(size=(3, 1, 1, 1, 8)).astype(np.float32)
    expected = results(PLAIN, x, kernel)

    devices = np.array(jax.devices()).reshape(4, 2)
    mesh = jax.sharding.Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    for axes in ("data", ("data", "model")):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(axes)))
        compiled = jax.jit(functools.partial(results, KERNEL)).lower(sharded, kernel).compile()
        out = compiled(sharded, kernel)
        close(out, expected)
        assert out[0].sharding.spec[0] == axes, out[0].sharding
        assert out[1].sharding.spec[0] == axes, out[1].sharding
        assert not gathered(compiled, x.shape)
    print("sharded by jit")

    with kernels.batches_over("data"):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        lowered = jax.jit(functools.partial(results, KERNEL)).lower(sharded, kernel)
    assert "CustomSPMDPartitioning" not in lowered.as_text(), "XLA for TPUs does not know it"
    compiled = lowered.compile()
    close(compiled(sharded, kernel), expected)
    assert not gathered(compiled, x.shape)
    with (
        kernels.batches_over("date"),
        pytest.raises(ValueError, match="has date, which the mesh has not; it has data, model"),
    ):
        jax.jit(KERNEL).lower(sharded, kernel)
    print("told over which axes")

    explicit = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit):
        sharded = jax.device_put(x, NamedSharding(explicit, PartitionSpec("data")))
        close(jax.jit(functools.partial(results, KERNEL))(sharded, kernel), expected)
    print("sharded by type")

    def on_each(x, kernel):
        out, dx, dkernel = results(KERNEL, x, kernel)
        return out, dx, jax.lax.psum(dkernel, "data")

    split, whole = PartitionSpec("data"), PartitionSpec()
    by_hand = jax.shard_map(
        on_each, mesh=mesh, in_specs=(split, whole), out_specs=(split, split, whole), check_vma=False
    )
    close(jax.jit(by_hand)(x, kernel), expected)
    print("sharded by hand")

    by_device = jax.pmap(functools.partial(results, KERNEL), in_axes=(0, None))(x.reshape(8, 2, *x.shape[1:]), kernel)
    close(by_device[0].reshape(expected[0].shape), expected[0])
    close(by_device[2].sum(0), expected[2])
    print("pmap")

    many = np.stack([x, x[::-1]])
    close(jax.vmap(KERNEL, (0, None))(many, kernel), jax.vmap(PLAIN, (0, None))(many, kernel))
    both = np.stack([kernel, -kernel])
    close(
        jax.vmap(functools.partial(results, KERNEL))(many, both),
        jax.vmap(functools.partial(results, PLAIN))(many, both),
    )
    print("mapped")

    def steps(convolve, x, kernel):
        body = jax.checkpoint(lambda x, _: (jnp.tanh(convolve(x, kernel)), None))
        return jax.lax.scan(body, x, None, length=3)[0].sum()

    ours = jax.jit(jax.grad(functools.partial(steps, KERNEL), (0, 1)))(x, kernel)
    close(ours, jax.grad(functools.partial(steps, PLAIN), (0, 1))(x, kernel))
    print("scanned and recomputed")


if __name__ == "__main__":
    # Plain interpretation: that of a TPU makes host callbacks, which XLA's partitioner does not take.
    with pltpu.force_tpu_interpret_mode(True):  # pyright: ignore[reportArgumentType]
        main()
