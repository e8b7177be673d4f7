"""`python -m benchmarks.kernels --chip v5e,v6e`: XLA and our kernels on TPUs, by the static clock.

Prints a table for each chip and keeps it as `benchmarks/results/<chip>-kernels.csv`. What is there already is not
measured again unless `--again` says so, so a stopped run goes on where it was. `--tune` enters what won on every
chip measured into `kernels/tuned/tpu.json`, from where `zoo.kernels` takes its choices.

Four ratios follow the times, above 1 where we win: plain lax to the best of `rewritten` and `pallas_tpu`; the best of
XLA's two layouts to the same; whatever is fastest without Pallas, `rewritten` too, to `pallas_tpu`; and XLA to our
convolution where both have the batch inside. The roofline share is the floor's of the best of ours.

`--again --columns pallas_tpu` after a kernel has changed: the table cannot see that its source did.
"""

import dataclasses
import datetime
import fnmatch
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import kernel_blocks, on_device, tables
from benchmarks.kernel_rows import COLUMNS, INSIDE, Row, inside_shapes, rows
from benchmarks.tpu_static import EstimateError, check, estimate
from zoo import command_line
from zoo.errors import UserError
from zoo.kernels.dispatch import Refused

PLAIN, OURS = COLUMNS[:2], ("rewritten", "pallas_tpu")
RATIOS = ("xla / ours", "xla best / ours", "plain best / pallas", "both inside")
FIELDS = ("case", "model", "row", "operation", "shapes", *COLUMNS, "floor", *RATIOS, "roofline", "key", "notes")

# Seconds for one program: a few of XLA's own, such as the weight gradient of a stem in 3D, take an hour.
PATIENCE = 100

# A choice has to beat XLA by this much on every chip: the clock's own doubt about programs of another make.
MARGIN = 1.03

# Block sizes are looked for where our kernel's own choice takes less than twice XLA's best form.
NEAR = 0.5

# The models in which choices were found to help, by `benchmarks.models_static`. Beside other operations a kernel may
# cost copies that it does not cost alone, so a win in the table is not yet one in a model.
HELPED = ("i3d", "r3d_18", "r2plus1d_18", "convlstm")

# What whole models want of a kernel beside its own time: in which order of axes the next operation likes the result.
BLOCKS = {
    ("r3d stem", "forward"): {"columns_in_lanes": 0, "batch_inside": 1},
    ("r2plus1d stem", "forward"): {"columns_in_lanes": 0},
}

# Operations whose default XLA serves so badly that plain JAX in another form takes all shapes not measured.
OTHERWISE = {"max_pool of 3 axes": "rewritten"}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Estimates kernels for TPUs without a TPU."""

    chip: str = "v5e,v6e"
    """Chips to compile for, with commas between."""
    only: str = "*"
    """Cases to measure, with wildcards, and commas between: "i3d pool*,resnet*"."""
    columns: str = ",".join(COLUMNS)
    """Which of the formulations to measure."""
    again: bool = False
    """Measure what the table has already, too."""
    blocks: bool = False
    """Try other block sizes for our kernels, where they come near XLA, in place of measuring formulations."""
    tune: Literal["tpu", "cpu", "cuda"] | None = None
    """Enter what wins in kernels/tuned/<platform>.json: for TPUs by the tables of the chips; for this machine's CPU or
    GPU by times of what the models call, of which `--only` takes some by "models operation shapes"."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.kernels")
    if arguments.tune in ("cpu", "cuda"):
        jax.config.update("jax_platforms", arguments.tune)
        on_device.tune(arguments.tune, arguments.only.split(","), again=arguments.again)
        return
    jax.config.update("jax_platforms", "cpu")
    chips = arguments.chip.split(",")
    columns = arguments.columns.split(",")
    for chip in chips:
        ready(chip, _file(chip))
    for column in columns:
        if column not in COLUMNS:
            raise UserError(f"no formulation {column!r}; there are {', '.join(COLUMNS)}")
    patterns = arguments.only.split(",")
    chosen = [row for row in rows() if any(fnmatch.fnmatch(row.case.name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"no case matches {arguments.only!r}")
    for chip in chips:
        table = read(chip)
        for row in track(chosen, description=chip, console=Console(stderr=True)):
            if not arguments.blocks:
                measure(row, chip, columns, table, again=arguments.again)
            elif (
                _may_be_chosen(row.case.model) and _gain(table.get((row.case.name, row.name), {}), "pallas_tpu") > NEAR
            ):
                kernel_blocks.search(row, chip, PATIENCE, header(chip))
        if arguments.blocks:
            continue
        write(chip, table)
        show(chip, [table[row.case.name, row.name] for row in chosen])
    if arguments.tune:
        tune(chips)


def measure(row: Row, chip: str, columns: Sequence[str], table: dict, *, again: bool) -> None:
    """Fills a row's cells that are missing, and keeps the table after each."""
    cells = table.setdefault((row.case.name, row.name), {})
    cells |= dict.fromkeys(FIELDS, "") | cells
    shapes = " ".join("x".join(map(str, shape.shape)) for shape in row.shapes)
    cells |= {"case": row.case.name, "model": row.case.model, "row": row.name, "operation": row.operation}
    cells |= {"shapes": shapes, "key": row.key, "floor": f"{row.floor(chip):.1f}"}
    for column in columns:
        if column not in row.programs or (cells[column] and not again):
            continue
        taken = inside_shapes(row) if column in INSIDE else row.shapes
        notes = [note for note in cells["notes"].split("; ") if note and not note.startswith(f"{column}:")]
        try:
            measured = estimate(row.programs[column], *taken, chip=chip, flops=row.flops, patience=PATIENCE)
            cells[column] = f"{measured.microseconds:.1f}"
        except (Refused, ValueError, EstimateError) as error:
            cells[column] = "-"
            notes.append(f"{column}: {' '.join(str(error).split())[:160]}".replace(";", ","))
        cells["notes"] = "; ".join(notes)
        write(chip, table)


def ready(chip: str, file: Path) -> None:
    """Sees that a chip can be judged here, and that what its table has already is of the same compiler.

    Raises:
      UserError: it cannot, or it is of another, whose figures do not belong in one table with new ones.
    """
    try:
        check(chip)
    except EstimateError as error:
        raise UserError(str(error)) from error
    if file.exists():
        first = file.read_text().partition("\n")[0]
        if versions() not in first.split("; "):
            raise UserError(f"{file.name} says {first!r}, here are {versions()}; move it away to measure all anew")


def versions() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu"))


def header(chip: str) -> str:
    today = datetime.date.today().isoformat()
    what = f"static estimate, not a measurement: microseconds on one {chip} by the compiler's final program"
    return f"{what}; {versions()}; {today}"


def _file(chip: str) -> Path:
    return tables.RESULTS / f"{chip}-kernels.csv"


def read(chip: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The table so far, by case and row."""
    return tables.read(_file(chip), "case", "row")


def write(chip: str, table: Mapping[tuple[str, ...], Mapping[str, str]]) -> None:
    """The whole table, in the order of the cases, in place of the file that was there."""
    order: dict[tuple[str, ...], int] = {(row.case.name, row.name): i for i, row in enumerate(rows())}
    ordered = sorted(table, key=lambda key: order.get(key, len(order)))
    tables.write(_file(chip), header(chip), FIELDS, ({**table[key], **ratios(table[key])} for key in ordered))


def _microseconds(cells: Mapping[str, str], columns: Iterable[str]) -> float:
    return min((float(cells[c]) for c in columns if cells.get(c, "") not in ("", "-")), default=float("inf"))


def ratios(cells: Mapping[str, str]) -> dict[str, str]:
    """What follows from a row's times, as the module's text has it; empty where one of two was not measured."""
    ours, kernel = _microseconds(cells, OURS), _microseconds(cells, ["pallas_tpu"])
    pairs = [_microseconds(cells, columns) / ours for columns in (["xla"], PLAIN)]
    pairs.append(_microseconds(cells, (*PLAIN, "rewritten")) / kernel)
    pairs.append(_microseconds(cells, ["xla_batch_inside"]) / _microseconds(cells, ["pallas_batch_inside"]))
    figures = {name: f"{value:.2f}" for name, value in zip(RATIOS, pairs, strict=True) if 0 < value < float("inf")}
    share = f"{float(cells['floor']) / ours:.0%}" if ours < float("inf") else ""
    return dict.fromkeys(RATIOS, "") | figures | {"roofline": share}


def show(chip: str, every: Sequence[Mapping[str, str]]) -> None:
    """The table on the screen: microseconds, ratios, share of the roofline."""
    table = Table(title=header(chip), title_justify="left", box=None)
    shown = ("case", "row", *COLUMNS, "floor", *RATIOS, "roofline")
    for name in shown:
        table.add_column(name.replace("_", " "), justify="left" if name in ("case", "row") else "right")
    for cells in every:
        every_cell = dict.fromkeys(FIELDS, "") | dict(cells) | ratios(cells)
        table.add_row(*(every_cell[name] for name in shown))
    Console(width=180).print(table)


def _may_be_chosen(model: str) -> bool:
    return model.split()[0] in HELPED


def _is_measured(cells: Mapping[str, str]) -> bool:
    """Whether XLA and our kernel were tried; XLA taking longer to compile than anyone waits is an answer, too."""
    return cells["xla"] != "" and cells["pallas_tpu"] != ""


def _gain(cells: Mapping[str, str], column: str) -> float:
    """How many times as fast as XLA's best form; 0 where it does not serve the row."""
    time = _microseconds(cells, [column])
    return _microseconds(cells, PLAIN) / time if time < float("inf") else 0.0


def tune(chips: Sequence[str]) -> None:
    """Writes the choices: what beats XLA's best form on every chip, in models that were seen to gain by such.

    Rows that dispatch cannot tell apart, as a ConvLSTM's forward pass and training step, choose together: none of them
    may lose. Rows where XLA or our kernel was not tried yet choose nothing, and choices made before for them stay.
    """
    measured, searched = [read(chip) for chip in chips], [kernel_blocks.read(chip) for chip in chips]
    alike: dict[str, list[Mapping[str, str]]] = {}
    blocks: dict[str, dict[str, int]] = {}
    for key in sorted(set.intersection(*map(set, measured))):
        cells = [table[key] for table in measured]
        if _may_be_chosen(cells[0]["model"]) and all(_is_measured(c) for c in cells):
            choice = f"{cells[0]['operation']} {cells[0]['key']}"
            if key in BLOCKS:
                blocks[choice] = BLOCKS[key]
            elif found := kernel_blocks.best(key, searched):
                blocks[choice], times = found
                cells = [{**c, "pallas_tpu": f"{time}"} for c, time in zip(cells, times, strict=True)]
            alike.setdefault(choice, []).extend(cells)
    choices: dict[str, Any] = tables.choices("tpu") | {key: {"implementation": name} for key, name in OTHERWISE.items()}
    for choice, cells in alike.items():
        gains = {column: min(_gain(c, column) for c in cells) for column in OURS}
        name = max(gains, key=lambda column: (gains[column], -sum(_microseconds(c, [column]) for c in cells)))
        name = name if gains[name] >= MARGIN else "xla"
        choices[choice] = {"implementation": name}
        if name == "pallas_tpu" and choice in blocks:
            choices[choice]["blocks"] = blocks[choice]
    tables.write_choices("tpu", ", ".join(chips), header(" and ".join(chips)), choices)
    print(f"{len(choices)} choices for TPUs")


if __name__ == "__main__":
    command_line.run("python -m benchmarks.kernels", main)
