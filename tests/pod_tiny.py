"""The pod-slice benchmark with models that compile in seconds. Either wants a process of its own:

`python -m tests.pod_tiny compile SLICE STRATEGY` is the process that holds the compiler; it prints the number of
the model's parameters, and the report. `python -m tests.pod_tiny run FOLDER STRATEGY` times eight devices that the CPU
pretends to have, as if they were a v5e-8, and puts the table into the folder.
"""

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from benchmarks.pod.models import TRAINED, Trained
from tests import counted

# In float32, so that gradients are as wide as parameters; each of them is used once in a step.
TINY = TRAINED["tiny"] = Trained(
    dataclasses.replace(
        TRAINED["video_gen"].config,
        options={"widths": (32,), "patch": 4},
        task_options={"clip_shape": (2, 16, 16, 1)},
        compute_dtype="float32",
    ),
    {"video": ((2, 16, 16, 1), "uint8"), "classes": ((10,), "float32")},
)
TRAINED["counting"] = Trained(counted.CONFIG, {"video": ((2, 4, 4, 3), "uint8"), "label": ((), "int32")})


def compile_it(name: str, strategy: str) -> None:
    import jax
    from flax import nnx

    from benchmarks.pod import worker
    from zoo import registry

    model = nnx.eval_shape(lambda: registry.create("video_gen", **TINY.config.options))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    print(json.dumps({"parameters": count}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["worker", "tiny", name, strategy, "0", "2", folder]
        worker.main()


def run_it(folder: str, strategy: str) -> None:
    import jax

    from benchmarks import pod_slice, tables
    from benchmarks.pod import measured

    # Machine code is not polished: it compiles far longer than it runs.
    jax.config.update("jax_disable_most_optimizations", True)
    counted.register()
    tables.RESULTS = Path(folder)
    measured.check_here = lambda slice_: None
    measured.STEPS = 2
    pod_slice.main(["--model", "counting", "--slice", "v5e-8", "--parallel", strategy, "--per-chip-batch", "2"])


if __name__ == "__main__":
    {"compile": compile_it, "run": run_it}[sys.argv[1]](*sys.argv[2:])
