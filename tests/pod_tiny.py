"""The pod-slice benchmark with a model that compiles in seconds, "tiny": `python -m tests.pod_tiny compile SLICE STRATEGY`.

`compile` is the compiler's process of the benchmark; it prints the report, and the number of the model's parameters.
`run FOLDER STRATEGY` times eight devices that the CPU pretends to have, as if they were a v5e-8, and puts the table into
the folder. Both want a process of their own.
"""

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from benchmarks.pod.models import TRAINED, Trained

# In float32, so that gradients are as wide as parameters.
TINY = Trained(
    dataclasses.replace(
        TRAINED["convlstm"].config,
        options={"widths": (8,), "kernel_size": 3},
        task_options={"context": 2},
        compute_dtype="float32",
    ),
    {"video": ((4, 16, 16, 1), "uint8")},
)


def compile_it(name: str, strategy: str) -> None:
    from benchmarks.pod import worker

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["worker", "tiny", name, strategy, "2", folder]
        worker.main()
    from zoo import registry

    import jax  # isort: skip
    from flax import nnx

    model = nnx.eval_shape(lambda: registry.create("convlstm", **TINY.config.options))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    print(json.dumps({"parameters": count}), flush=True)


def run_it(folder: str, strategy: str) -> None:
    from benchmarks import pod_slice, tables
    from benchmarks.pod import measured

    tables.RESULTS = Path(folder)
    measured.check_here = lambda slice_: None
    measured.STEPS = 2
    pod_slice.main(["--model", "tiny", "--slice", "v5e-8", "--parallel", strategy, "--per-chip-batch", "2"])


if __name__ == "__main__":
    TRAINED["tiny"] = TINY
    {"compile": compile_it, "run": run_it}[sys.argv[1]](*sys.argv[2:])
