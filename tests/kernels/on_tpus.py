"""Run by test_over_batch.py in a process of its own: a pool and its gradient compiled for four v5e chips."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zoo import kernels


def pooled(x):
    # In bfloat16 the table of choices has a kernel for this call.
    return kernels.max_pool(x, window=(3, 3, 3), strides=1, padding="SAME").astype(jnp.float32).sum()


def main():
    devices = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu").devices
    mesh = Mesh(np.array(devices).reshape(4, 1), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    split = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((8, 4, 14, 14, 480), jnp.bfloat16, sharding=split)
    told = {}
    for name, axes in (("told", ("data",)), ("not told", ())):
        with kernels.batches_over(*axes):
            # A function of its own each time: what was traced before would be taken again.
            program = jax.jit(jax.grad(lambda x: pooled(x))).lower(x).compile().as_text()
        told[name] = {"kernels": "tpu_custom_call" in program, "gathers": "all-gather" in program}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
