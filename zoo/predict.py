"""`zoo predict FILE --model M`: the likeliest labels of a video."""

import dataclasses
from typing import Annotated

from tyro.conf import Positional

from zoo import command_line, registry
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Names what happens in a video."""

    file: Annotated[str, Positional]
    """Path or address of the video."""
    model: str
    """A published classifier: see `zoo list`."""
    top: int = 5
    """How many labels to tell."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo predict")
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} asks for no label; give 1 or more")
    task = registry.card(arguments.model).task
    if task != "classification":
        raise UserError(f"{arguments.model} is made for {task}; zoo predict takes a model for classification")

    from zoo.predictor import load  # after the mistakes that can be told without waiting for JAX

    answers = load(arguments.model)(arguments.file)[: arguments.top]
    if arguments.json:
        _print_json(arguments, answers)
    else:
        _print_table(arguments, answers)


def _print_json(arguments: Arguments, answers: list[tuple[str, float]]) -> None:
    import json

    predictions = [{"label": label, "probability": probability} for label, probability in answers]
    print(
        json.dumps({"file": arguments.file, "model": arguments.model, "predictions": predictions}, ensure_ascii=False)
    )


def _print_table(arguments: Arguments, answers: list[tuple[str, float]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{arguments.file}, by {arguments.model}"), title_justify="left")
    table.add_column("label")
    table.add_column("probability", justify="right")
    for label, probability in answers:
        table.add_row(escape(label), f"{probability:.3f}")
    Console().print(table)


if __name__ == "__main__":
    command_line.run("zoo predict", main)
