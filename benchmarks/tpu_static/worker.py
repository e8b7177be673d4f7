"""The process that holds the TPU compiler: takes exported programs, gives back what their final code costs.

It is apart because libtpu reads its options when it is loaded, holds a lock, and may end the process. Run as
`python -m benchmarks.tpu_static.worker CHIP`; each line in is a file of `jax.export`, each line out a JSON object.
"""

import glob
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tpu_static.chips import CHIPS, Chip

DUMPED = ".*(assembly-pre|hlo-details).*"
_RANGE = re.compile(r"\[TensorCoreSequencer:\d+:0x([0-9a-f]+), TensorCoreSequencer:\d+:0x([0-9a-f]+)\)")
_KIND = re.compile(r"\} (\S+?)\(|\) (\S+?)\(|\] (\S+?)\(")


def prepare(chip: Chip, folder: str) -> None:
    """The environment that libtpu wants without a TPU, and the dumps of its last stage."""
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": chip.accelerator_type,
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
        f"--xla_jf_dump_llo_pass_label_regex={DUMPED}",
    }


def compile_program(exported_file: Path, chip: Chip):
    """The compiled program, and the seconds that compiling took."""
    import jax
    import numpy as np
    from jax import export
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    exported = export.deserialize(bytearray(exported_file.read_bytes()))
    topology = topologies.get_topology_desc(topology_name=chip.topology, platform="tpu")
    here = NamedSharding(Mesh(np.array(topology.devices[:1]), ("chip",)), PartitionSpec())
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=here) for aval in exported.in_avals]
    begun = time.monotonic()
    compiled = jax.jit(lambda *arrays: exported.call(*arrays), out_shardings=here).lower(*shapes).compile()
    return compiled, time.monotonic() - begun


def read_dump(folder: str) -> tuple[list[str], list[tuple[int, str]]]:
    """Lines of the largest program's assembly, and where each HLO operation begins: (bundle, name)."""
    files = [f for f in glob.glob(f"{folder}/*assembly-pre-overlay*") if "<" not in f]
    assembly = max(files, key=os.path.getsize)
    prefix = os.path.basename(assembly).split("-TLP")[0]
    details = min(glob.glob(f"{glob.escape(folder)}/{glob.escape(prefix)}-TLP-*hlo-details*"))
    operations, name = [], ""
    for line in Path(details).read_text().splitlines():
        if found := re.match(r"\s+operation: (%\S+) = (.*)", line):
            kind = _KIND.search(found.group(2))
            name = f"{found.group(1)} {next(filter(None, kind.groups()), '') if kind else ''}".strip()
        operations += [(int(first, 16), name) for first, _ in _RANGE.findall(line)]
    return Path(assembly).read_text().splitlines(), sorted(operations)


def count(lines: list[str], operations: list[tuple[int, str]], chip: Chip) -> dict:
    """Runs the program from its first operation's code to its end."""
    from benchmarks.tpu_static.execute import Machine
    from benchmarks.tpu_static.program import Decoder

    decoder = Decoder()
    numbered = [line for line in lines if re.match(r"^\d+:0x[0-9a-f]+\s*: \{.*\}", line)]
    bundles = decoder.decode(numbered)
    # The last trace mark of a program is its end; before its first operation it returns from its prologue.
    end = max((i for i, line in enumerate(numbered) if "vtrace $0x9fffffff" in line), default=len(numbered))
    first = operations[0][0]
    returns = (i for i in range(first - 1, max(first - 400, 0), -1) if "(pc) = s" in numbered[i])
    start = min(next(returns, first) + 5, first)
    machine = Machine(bundles, chip, [first for first, _ in operations])
    result = machine.run(start, end)
    by_operation: dict[str, float] = {}
    for (_, name), cycles in zip(operations, result.by_operation, strict=True):
        by_operation[name] = by_operation.get(name, 0.0) + cycles
    return {
        "cycles": result.cycles,
        "stalled": result.stalled,
        "hbm_bytes": result.hbm_bytes,
        "slots": result.slots,
        "by_operation": sorted(by_operation.items(), key=lambda item: -item[1]),
        "ended": result.ended,
        "stuck": result.stuck,
        "unknown": dict(decoder.unknown + machine.registers.unknown),
    }


def estimate(exported_file: Path, chip: Chip, folder: str) -> dict:
    for dump in glob.glob(f"{folder}/*"):
        os.remove(dump)
    compiled, seconds = compile_program(exported_file, chip)
    cost = compiled.cost_analysis() or {}
    counted = count(*read_dump(folder), chip)
    return counted | {"compile_seconds": seconds, "flops": cost.get("flops", 0.0)}


def main() -> None:
    chip = CHIPS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        prepare(chip, folder)
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # the compiler prints what it likes; only answers go to whom we answer
        for line in sys.stdin:
            try:
                answer = estimate(Path(line.strip()), chip, folder)
            except Exception as error:  # told to whoever asked, who raises it
                answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
