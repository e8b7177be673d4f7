"""Run by test_gpu.py in a process of its own: compiles our GPU kernels for the GPU named, which need not be there.

    JAX_PLATFORMS=cpu MOSAIC_GPU_DUMP_PTXAS=1 MOSAIC_GPU_DUMP_PTX=1 python tests/kernels/gpu_compile.py h100

Prints `== name` before what the assembler says of a kernel. A kernel and a description that do not fit end the process.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from zoo import kernels
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.pool.cases import CASES as POOL

TARGETS = Path(__file__).parent / "gpu_targets"
SERVED = {"h100": ("max_pool", "avg_pool", "conv"), "a100": ("max_pool", "avg_pool")}
OTHERS = (
    ("one image", "max_pool", [(1, 57, 57, 128)], "float32", {"window": (3, 3), "strides": 2, "padding": "SAME"}),
    ("odd batch", "avg_pool", [(9, 14, 14, 64)], "bfloat16", {"window": (3, 3), "strides": 1, "padding": "SAME"}),
    ("temporal", "max_pool", [(2, 16, 7, 7, 8)], "float32", {"window": (3, 1, 1), "strides": 1, "padding": "SAME"}),
    ("of width", "max_pool", [(300, 9, 8)], "bfloat16", {"window": (2,)}),
    ("dilated", "conv", [(3, 9, 9, 64), (3, 3, 64, 64)], "bfloat16", {"dilation": (2, 3)}),
    ("1D", "conv", [(2, 99, 8), (5, 8, 192)], "bfloat16", {"padding": [(4, 0)]}),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=list(SERVED))
    target = parser.parse_args().target
    description = (TARGETS / f"{target}.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=description, topology="1x1x1")
    on_it = NamedSharding(topologies.make_mesh(topology, (1,), ("batch",)), PartitionSpec())
    cases = [(c.name, c.operation, c.shapes, c.dtype, c.options) for c in (*POOL, *CONV)]
    for name, operation, shapes, dtype, options in (*cases, *OTHERS):
        if operation not in SERVED[target]:
            continue
        function = partial(getattr(kernels, operation), implementation="pallas_gpu", **options)
        arrays = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=on_it) for shape in shapes]
        print(f"== {operation} {name}", flush=True)
        try:
            jax.eval_shape(function, *arrays)
        except ValueError as refusal:
            print(f"refused: {refusal}", flush=True)
            continue
        with jax.default_device(topology.devices[0]):
            jax.jit(function).lower(*arrays).compile()


if __name__ == "__main__":
    main()
