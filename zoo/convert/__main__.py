"""`zoo convert FILE --to NAME --out DIR`: foreign weights to a checkpoint of ours."""

import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from zoo import command_line
from zoo.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Converts foreign weights to a checkpoint of ours."""

    file: Annotated[Path, Positional]
    """The foreign weights; nothing that they hold is run."""
    to: str
    """The architecture that they are for, or the published model, where that has other options."""
    out: Path
    """Folder for the Orbax tree; one that is there is replaced."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo convert")

    from flax import nnx  # after the mistakes that can be told without waiting for JAX

    from zoo import convert, hub, models, registry

    card = registry.card(arguments.to) if arguments.to in registry.list_models() else None
    arch, options = (card.arch, card.options) if card else (arguments.to, {})
    model = nnx.eval_shape(lambda: registry.create(arch, **options))
    # A layout has the name of the file in zoo.models that its network is written in.
    layout = type(model).__module__.rpartition(".")[-1]
    layouts, networks = (
        {file.name for file in pkgutil.iter_modules(package.__path__)} for package in (convert, models)
    )
    if layout not in layouts & networks:
        known = ", ".join(sorted(layouts & networks))
        raise UserError(f"no foreign weights for {arguments.to} can be read; there are converters for {known}")
    reader = importlib.import_module(f"zoo.convert.{layout}")
    hub.save_weights(reader.convert(reader.read(arguments.file), model), arguments.out)
    print(f"{arguments.to}: weights written to {arguments.out}")


if __name__ == "__main__":
    command_line.run("zoo convert", main)
