"""The table of a slice, `benchmarks/results/<slice>-pod.csv`, and its picture: what is kept, shown and drawn."""

import datetime
import functools
import importlib.metadata
import importlib.util
import subprocess
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import tables
from benchmarks.pod.collectives import Collective
from benchmarks.pod.scaling import Point
from benchmarks.pod.slices import Slice
from zoo.parallel import Parallel

KEY = ("model", "parallel", "scaling", "chips", "per_chip_batch")
FIELDS = (
    *KEY,
    "global_batch",
    "step_ms",
    "own_ms",
    "collective_ms",
    "clips_per_second",
    "clips_per_second_chip",
    "mfu",
    "efficiency",
    "fits",
    "peak_gb",
    "argument_gb",
    "output_gb",
    "shared_gb",
    "temporary_gb",
    "code_gb",
    "hbm_gb",
    "model_tflop",
    "xla_tflop",
    "xla_hbm_gb",
    "collectives",
    "dearest",
    "compile_seconds",
    "first_step_seconds",
    "by",
)
_SHOWN = (*KEY, *FIELDS[len(KEY) : FIELDS.index("argument_gb")], "temporary_gb", "hbm_gb")

type Row = dict[str, Any]


def estimate_header(slice_: Slice) -> str:
    return (
        f"static estimate, not a measurement: a training step compiled for {slice_.name} with no TPU; milliseconds by "
        "the compiler's final program for one chip and by rings at the published link bandwidth"
    )


def measured_header(slice_: Slice, hardware: str) -> str:
    return f"measured on {slice_.name}: {hardware}"


@functools.cache
def origin() -> str:
    """Versions, the commit and the day, which every row carries."""
    installed = [name for name in ("jax", "libtpu", "flax") if importlib.util.find_spec(name)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in installed)
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    return f"{versions}, commit {commit or 'unknown'}, {datetime.date.today().isoformat()}"


def file_of(slice_: Slice, *, measured: bool) -> Path:
    return tables.RESULTS / f"{slice_.name}-pod{'-measured' * measured}.csv"


def way(parallel: Parallel) -> str:
    """How a step is split, in the table."""
    near = parallel.batch_norm_devices
    return f"{parallel.strategy}, batch norm over {near}" if near else parallel.strategy


def row(model: str, parallel: Parallel, scaling: str, chips: int, per_chip: int) -> Row:
    """The start of a row: what it is of, and where it comes from."""
    start = dict(zip(KEY, (model, way(parallel), scaling, chips, per_chip), strict=True))
    return start | {"global_batch": chips * per_chip, "by": origin()}


def point_cells(point: Point, flops: float, slice_: Slice, efficiency: float | None) -> Row:
    """The times of a point in milliseconds, and what follows; `flops` of the model on each chip."""
    speed = point.global_batch / point.step
    cells = {
        "step_ms": f"{1e3 * point.step:.3f}",
        "clips_per_second": f"{speed:.1f}",
        "clips_per_second_chip": f"{speed / point.chips:.2f}",
        "mfu": f"{flops / point.step / slice_.chip.peak:.3f}",
    }
    if point.collective is not None:
        cells["own_ms"] = f"{1e3 * (point.step - point.collective):.3f}"
        cells["collective_ms"] = f"{1e3 * point.collective:.3f}"
    return cells | ({"efficiency": f"{efficiency:.3f}"} if efficiency is not None else {})


def compiled_cells(program: Mapping[str, Any], slice_: Slice) -> Row:
    """Memory of a chip in 10^9 bytes, by kind and of how much there is, and what XLA counts."""
    kinds = ("peak", "argument", "output", "shared", "temporary", "code")
    cells = {f"{kind}_gb": f"{program[f'{kind}_bytes'] / 1e9:.3f}" for kind in kinds if f"{kind}_bytes" in program}
    cells |= {"fits": "yes" if program["fits"] else "no", "hbm_gb": f"{slice_.chip.hbm_bytes / 1e9:.0f}"}
    cells["compile_seconds"] = f"{program['compile_seconds']:.0f}"
    if program["fits"]:
        cells["xla_tflop"] = f"{program['flops'] / 1e12:.4f}"
        cells["xla_hbm_gb"] = f"{program['hbm_bytes'] / 1e9:.2f}"
    return cells


def told_collectives(collectives: Iterable[Collective], slice_: Slice) -> str:
    """By kind: how many, bytes in all, and their time."""
    kinds: dict[str, list[Collective]] = {}
    for one in collectives:
        kinds.setdefault(one.kind, []).append(one)
    return "; ".join(
        f"{kind}: {sum(o.times for o in every)} of {sum(o.times * o.bytes for o in every) / 1e6:.2f} MB in all, "
        f"{1e3 * sum(o.times * o.seconds(slice_) for o in every):.3f} ms"
        for kind, every in sorted(kinds.items())
    )


def keep(file: Path, header: str, rows: Iterable[Row]) -> None:
    """Puts rows into a table, in place of those of the same model, strategy, scaling, chips and batch."""
    table: dict[tuple[str, ...], Mapping[str, Any]] = dict(tables.read(file, *KEY))
    for row in rows:
        table[tuple(str(row[name]) for name in KEY)] = row
    order = sorted(table, key=lambda key: (*key[:3], int(key[4]) if key[2] == "weak" else 0, int(key[3]), key[4]))
    tables.write(file, header, FIELDS, (table[key] for key in order))


def show(header: str, rows: Iterable[Row]) -> None:
    """Rows on the screen, under the line that says what they are."""
    table = Table(box=None)
    for name in _SHOWN:
        table.add_column(name.replace("_", " "), justify="left" if name in KEY[:3] else "right")
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in _SHOWN))
    console = Console(width=200)
    console.print(f"# {header}", soft_wrap=True, highlight=False)
    console.print(table)


def draw(file: Path, header: str) -> Path:
    """Draws all curves of a table into a picture beside it: efficiency under weak, speed-up under strong scaling."""
    from matplotlib.figure import Figure

    curves: dict[str, dict[str, list[tuple[int, float]]]] = {"weak": {}}
    for row in tables.read(file, *KEY).values():
        if (scaling := row["scaling"]) in ("weak", "strong") and row["efficiency"]:
            clips = f", {row['per_chip_batch']} a chip" if scaling == "weak" else f", {row['global_batch']} clips"
            curve = curves.setdefault(scaling, {}).setdefault(f"{row['model']}, {row['parallel']}{clips}", [])
            curve.append((int(row["chips"]), float(row["efficiency"])))
    figure = Figure(figsize=(5.5 * len(curves), 4.5), layout="constrained")
    figure.suptitle(textwrap.fill(header, 85 * len(curves)), fontsize=7)
    for (scaling, drawn), panel in zip(curves.items(), figure.subplots(1, len(curves), squeeze=False)[0], strict=True):
        for name, points in drawn.items():
            chips, efficiencies = zip(*sorted(points), strict=True)
            values = efficiencies if scaling == "weak" else [n * e for n, e in zip(chips, efficiencies, strict=True)]
            panel.plot(chips, values, marker="o", markersize=3, label=name)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.set_xlabel("chips")
        panel.set_title(f"{scaling} scaling")
        panel.grid(alpha=0.3)
        if drawn:
            panel.legend(fontsize=7)
        if scaling == "weak":
            panel.set_ylabel("efficiency")
            panel.set_ylim(0, 1.05)
        else:
            panel.set_ylabel("times as fast as one chip")
            panel.set_yscale("log", base=2)
            panel.yaxis.set_major_formatter("{x:g}")
    picture = file.with_suffix(".png")
    figure.savefig(picture, dpi=130)
    return picture
