"""The process that holds the TPU compiler: compiles a training step for a slice, and tells what became of it.

It is apart because libtpu reads its options when it is loaded, and may end the process. Run as `python -m
benchmarks.pod.worker MODEL SLICE STRATEGY BATCH_NORM_DEVICES PER_CHIP_BATCH FOLDER`. Each line out is a JSON object: a
`stage` that begins, at last a `report` or an `error`. Reports are kept in the folder, by the program that was lowered,
the compiler's version and the source of what reads its output: whatever changes a report changes its name.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import tpu_static
from benchmarks.pod.slices import SLICES, Slice
from benchmarks.tpu_static.worker import count, prepare, read_dump

# The two ways in which the compiler says how much it would take, and how much there is.
_NEEDS = re.compile(r"(?:Used |\()([\d.]+)([KMG])(?: of |\) exceeds available HBM \()([\d.]+)([KMG])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def needed(error: str) -> tuple[float, float] | None:
    """Bytes of HBM that a program would take, and that there are, if that is why it did not compile."""
    found = _NEEDS.search(error)
    if "RESOURCE_EXHAUSTED" not in error or not found:
        return None
    return float(found[1]) * _UNITS[found[2]], float(found[3]) * _UNITS[found[4]]


def report(model: str, slice_: Slice, parallel: Any, per_chip: int, folder: Path, dump: str, tell: Any) -> dict:
    """What a training step is on a slice; with a folder that programs are dumped to, the static clock's count, too."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import AxisType

    from benchmarks.pod import collectives
    from benchmarks.pod.models import abstract_step, trained

    # Both cores of a v4 as one device, as on its machines; of other chips that is so anyway.
    cores = {"chip_config_name": "megacore"} if slice_.chip.name == "v4" else {}
    topology = topologies.get_topology_desc(topology_name=slice_.topology, platform="tpu", **cores)
    parallel = dataclasses.replace(parallel, devices=tuple(topology.devices))
    tell(stage="tracing")
    of, batch = trained(model).on(parallel, per_chip)
    mesh = parallel.mesh.abstract_mesh  # some kernels ask which TPU they are for
    if parallel.strategy == "pmap":  # which makes a mesh of its own
        mesh = mesh.update((mesh.size,), (parallel.axis,), (AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        step, state = abstract_step(of, parallel)
        lowered = parallel.lower(step, *parallel.abstract(state, batch))
    versions = [importlib.metadata.version(name) for name in ("jax", "libtpu")]
    told_by = [Path(__file__), Path(collectives.__file__), *sorted(Path(tpu_static.__file__).parent.glob("*.py"))]
    matters = [slice_.topology, *versions, *(path.read_text() for path in told_by), lowered.as_text()]
    key = hashlib.sha256("\n".join(matters).encode()).hexdigest()
    kept = folder / f"{key[:32]}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    tell(stage="compiling")
    begun = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (needs := needed(str(error))) is None:
            raise
        told: dict[str, Any] = {"fits": False, "peak_bytes": needs[0], "limit_bytes": needs[1]}
    else:
        memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis() or {}, compiled.as_text()
        assert memory is not None
        assert text is not None
        kinds = {
            "argument_bytes": memory.argument_size_in_bytes,
            "output_bytes": memory.output_size_in_bytes,
            "shared_bytes": memory.alias_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "code_bytes": memory.generated_code_size_in_bytes,
        }
        told_others = collectives.collectives_in(text, len(topology.devices))
        told = {
            "fits": True,
            # An output that takes an argument's place, as the new state does, needs none of its own.
            "peak_bytes": sum(kinds.values()) - 2 * kinds["shared_bytes"],
            **kinds,
            "flops": cost.get("flops", 0.0),
            "hbm_bytes": cost.get("bytes accessed", 0.0),
            "collectives": [dataclasses.asdict(one) for one in told_others],
        }
        if dump:
            tell(stage="counting")
            counted = count(*read_dump(dump), slice_.chip)
            told["count"] = counted | {"by_operation": counted["by_operation"][:20]}
    told["compile_seconds"] = time.monotonic() - begun
    folder.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(told))
    os.replace(partial, kept)
    return told


def main() -> None:
    model, name, strategy, batch_norm_devices, per_chip, folder = sys.argv[1:]
    slice_ = SLICES[name]
    with tempfile.TemporaryDirectory() as dump:
        prepare(slice_.chip, dump)
        is_judged = slice_.chips == 1 and slice_.chip.name in tpu_static.CHIPS
        if not is_judged:
            del os.environ["LIBTPU_INIT_ARGS"]
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # the compiler prints what it likes; only answers go to whom we answer

        def tell(**what: Any) -> None:
            print(json.dumps(what), file=answers, flush=True)

        try:
            from zoo.parallel import Parallel  # jax is imported once libtpu's options are set

            parallel = Parallel(strategy, batch_norm_devices=int(batch_norm_devices))
            tell(report=report(model, slice_, parallel, int(per_chip), Path(folder), dump if is_judged else "", tell))
        except Exception as error:  # told to whoever asked, who raises it
            tell(error=f"{type(error).__name__}: {error}"[:2000])


if __name__ == "__main__":
    main()
