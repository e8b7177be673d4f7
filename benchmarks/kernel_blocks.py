"""Block sizes of the TPU kernels: what is tried beside a kernel's own choice, and which sizes win.

Each kernel chooses its blocks by an estimate of its own; the ConvLSTM's rows have to divide the image, and its rule
leaves nothing to search. The search changes one size at a time, and keeps what every
trial costs in `benchmarks/results/<chip>-blocks.csv`. A program lowered for TPUs does not know of which generation they
are, so the sizes that `kernels/tuned/tpu.json` gets are those that are best on all chips of the search together.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from benchmarks import tables
from benchmarks.kernel_rows import Row
from benchmarks.tpu_static import EstimateError, estimate
from zoo.kernels.conv.tpu_stem_plan import MOST_CHANNELS
from zoo.kernels.dispatch import Refused

type Table = Mapping[tuple[str, ...], Mapping[str, str]]

_DENSE = {"lines": (448, 896), "features": (128, 512), "frames": (1, 2), "fold": (1,)}
TRIED: Mapping[str, Mapping[str, Sequence[int]]] = {
    "conv": _DENSE,
    "conv_input_gradient": _DENSE,
    "conv_weight_gradient": {"lines": (448, 1792), "features": (128, 512)},
    "conv_bias_act_pool": {"lines": (224, 896), "rows": (2, 4, 7, 14)},
    "max_pool": {"channels": (128, 256, 512)},
    "max_pool_gradient": {"channels": (128, 256)},
    "depthwise_conv": {"rows": (1, 2, 4, 8, 16)},
    "depthwise_conv_input_gradient": {"rows": (1, 2, 4, 8, 16)},
    "depthwise_conv_weight_gradient": {"rows": (1, 2, 4, 8, 16)},
}
FIELDS = ("case", "row", "operation", "blocks", "microseconds", "notes")
OWN = "own"  # the kernel's choice

# Sizes that win by less are not worth an entry.
MARGIN = 1.02


def trials(row: Row) -> list[str]:
    """The block sizes to try, as the table names them: `lines=448`. None for stems, whose blocks have other names."""
    if row.operation.startswith("conv") and row.case.shapes[1][-2] <= MOST_CHANNELS:
        return []
    return [f"{name}={size}" for name, sizes in TRIED.get(row.operation, {}).items() for size in sizes]


def sizes(blocks: str) -> dict[str, int]:
    """A kernel's arguments from their name in the table."""
    return {} if blocks == OWN else {name: int(size) for name, size in (word.split("=") for word in blocks.split())}


def search(row: Row, chip: str, patience: float, header: str) -> None:
    """Measures the trials of a row that the table does not have, and keeps it after each."""
    table = dict(read(chip))
    keys = [(row.case.name, row.name, blocks) for blocks in (OWN, *trials(row))]
    seen = set()
    for key in keys if len(keys) > 1 and not table.keys() >= set(keys) else ():
        cells = {"case": row.case.name, "row": row.name, "operation": row.operation, "blocks": key[-1]}
        program = functools.partial(row.programs["pallas_tpu"], **sizes(key[-1]))
        try:
            traced = str(jax.make_jaxpr(program)(*row.shapes))
            if key in table:
                seen.add(traced)
                continue
            if traced in seen:
                cells["notes"] = "the same program as one above"
            else:
                seen.add(traced)
                cost = estimate(program, *row.shapes, chip=chip, flops=row.flops, patience=patience)
                cells["microseconds"] = f"{cost.microseconds:.1f}"
        except (Refused, ValueError, EstimateError) as error:
            cells["notes"] = " ".join(str(error).split())[:160]
        table[key] = cells
        tables.write(_file(chip), header, FIELDS, (table[key] for key in sorted(table)))


def read(chip: str) -> Table:
    return tables.read(_file(chip), "case", "row", "blocks")


def _file(chip: str) -> Path:
    return tables.RESULTS / f"{chip}-blocks.csv"


def best(key: tuple[str, ...], searched: Sequence[Table]) -> tuple[dict[str, int], list[float]] | None:
    """The sizes with which a row, `key`, takes least on all chips together, as a product, and what it takes on each.

    None where nothing was tried, or nothing beats the kernel's own choice by enough.
    """
    times: dict[str, list[float]] = {}
    for table in searched:
        for (*of, blocks), cells in table.items():
            if tuple(of) == key and cells["microseconds"]:
                times.setdefault(blocks, []).append(float(cells["microseconds"]))
    everywhere = {blocks: math.prod(each) for blocks, each in times.items() if len(each) == len(searched)}
    if OWN not in everywhere:
        return None
    least = min(everywhere, key=everywhere.__getitem__)
    if everywhere[OWN] < everywhere[least] * MARGIN ** len(searched):
        return None
    return sizes(least), times[least]
