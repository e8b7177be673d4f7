"""`zoo list [PATTERN]`: the published models."""

import dataclasses
from typing import Annotated

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from zoo import command_line, registry
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Lists the published models."""

    pattern: Annotated[str, Positional] = "*"
    """Names to list, with wildcards: "*kinetics*"."""
    markdown: bool = False
    """The table of the README."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo list")
    pattern = arguments.pattern
    names = registry.list_models(pattern)
    if not names:
        raise UserError(f"no model matches {pattern!r}; there are {', '.join(registry.list_models()) or 'none'}")
    if arguments.markdown:
        print(markdown(names))
        return
    table = Table(box=None)
    for column in ("model", "task", "parameters"):
        table.add_column(column, no_wrap=True)
    table.add_column("what it is")
    for card in map(registry.card, names):
        table.add_row(card.name, card.task, f"{card.parameters / 1e6:.2f}M", escape(card.description))
    Console().print(table)


def markdown(names: list[str]) -> str:
    """The models' cards as a table for the README."""
    rows = [
        "| model | task | parameters | GFLOPs a clip | published or measured | licence |",
        "|---|---|---|---|---|---|",
    ]
    for card in map(registry.card, names):
        figures = ", ".join(f"{name} {value}" for name, value in card.metrics.items())
        size, work = f"{card.parameters / 1e6:.2f}M", f"{card.flops / 1e9:.1f}"
        rows.append(f"| `{card.name}` | {card.task} | {size} | {work} | {figures} | {card.licence} |")
    return "\n".join(rows)


if __name__ == "__main__":
    command_line.run("zoo list", main)
