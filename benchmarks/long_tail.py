"""`python -m benchmarks.long_tail RUNS`: what each remedy of zoo/configs/long_tail.py gains, from finished runs.

`RUNS` holds the folders of runs, however deep: `python -m zoo.train --config long_tail --preset P --seed S --runs RUNS`
for each preset and some seeds. The table is Markdown: a row a preset, each figure the mean over its seeds and, in
brackets, the smallest and the largest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from zoo import command_line, run_log
from zoo.configs import TrainConfig
from zoo.configs.long_tail import PRESETS
from zoo.errors import UserError

FIGURES = ("top1_head", "top1_middle", "top1_tail", "top1")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tabulates finished runs of the long-tailed experiment."""

    runs: Annotated[Path, Positional]
    """Folder that holds them."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.long_tail")
    found = finished(arguments.runs)
    if not found:
        raise UserError(f"{arguments.runs} holds no finished run of long_tail")
    print(table(found))


def finished(folder: Path) -> dict[str, list[Mapping[str, float]]]:
    """The last test figures of each finished run below a folder, by preset; runs of other experiments are left out."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for path in sorted(folder.rglob("config.json")):
        config = TrainConfig.from_json(path.read_text(encoding="utf-8"))
        alike = dataclasses.replace(config, seed=0)
        preset = next((name for name, one in PRESETS.items() if one == alike), None)
        rows = [row for row in run_log.read_metrics(path.parent / "metrics.jsonl") if row["kind"] == "test"]
        if preset and rows and rows[-1]["step"] == config.steps:
            found.setdefault(preset, []).append(rows[-1])
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown, in per cent, presets in their order."""
    lines = ["| preset | head | middle | tail | all | seeds |", "|---|---|---|---|---|---|"]
    for preset in PRESETS:
        if preset in found:
            cells = [_cell([100 * row[name] for row in found[preset]]) for name in FIGURES]
            lines.append(f"| `{preset}` | {' | '.join(cells)} | {len(found[preset])} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    command_line.run("python -m benchmarks.long_tail", main)
