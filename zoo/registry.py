"""Names: architectures registered by `@register_model`, and the cards of the published models.

An architecture is a function that builds a network with fresh parameters. A card is `checkpoints/<name>/card.json`:
it binds an architecture to weights, labels, preprocessing, licence and measured figures.
"""

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import importlib.resources
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:  # cards are read without waiting seconds for JAX
    from flax import nnx

_ARCHITECTURES: dict[str, Callable[..., "nnx.Module"]] = {}


@dataclasses.dataclass(frozen=True)
class WeightSource:
    """One place that weights come from.

    kind "checkpoint": an Orbax tree in this repository, `files` relative to the card's folder.
    kind "package": a wheel, `requirement` "name==version", `wheel_sha256`; `files` are paths inside it.
    kind "url": `url` is the published address; `files` has one entry, the name it is saved under.
    `files` maps each file to its SHA-256, or for kind "url" to as much of it as is published: the first digits, or "".
    What is missing is noted when the file is first fetched, and holds from then on.
    `convert` names the module in zoo.convert that reads the files.
    `kept` names those of `files` that stay as they are, beside the weights: `zoo.hub.kept_file` finds them.
    `beneath` maps parts of the network, by their paths, to published models: a checkpoint then holds no more than what
    differs from those.
    """

    kind: str
    files: dict[str, str]
    convert: str | None = None
    requirement: str | None = None
    wheel_sha256: str | None = None
    url: str | None = None
    kept: list[str] | None = None
    beneath: dict[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is known of a published model; `dataclasses.asdict` of it is `checkpoints/<name>/card.json`.

    `options` are the arguments of `zoo.create(arch, ...)`; `preprocessing` those of the task's preprocessing
    (`zoo.data.transforms.Preprocessing` for classification). `parameters` is a count; `flops` counts one clip's forward
    pass, a multiply-add as two. `metrics` maps a figure's name to its value and `protocol` says how it was measured.
    `verification` is there where `zoo evaluate --verify` can measure the figures again. Of a classifier it has `clips`
    and `crops` of a video, whose sizes and frame rate are those of `preprocessing`, and `tolerance`, by which a share
    may differ; of a network that predicts frames the `dataset`, how many of its `videos`, and `relative_tolerance`.
    """

    name: str
    arch: str
    task: str
    description: str
    options: dict[str, Any]
    source: WeightSource
    labels: tuple[str, ...]
    preprocessing: dict[str, Any]
    parameters: int
    flops: int
    licence: str
    attribution: str
    protocol: str
    metrics: dict[str, Any]
    verification: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        values = json.loads(text)
        values["source"] = WeightSource(**values["source"])
        values["labels"] = tuple(values["labels"])
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def register_model[Build: Callable[..., "nnx.Module"]](build: Build) -> Build:
    """Registers `build(*, ..., rngs)` as an architecture under the function's own name."""
    name = build.__name__
    if name in _ARCHITECTURES:
        raise ValueError(f"two architectures are called {name!r}")
    _ARCHITECTURES[name] = build
    return build


@functools.cache
def _import_all_models() -> None:
    """Registration happens at import; a new file in zoo/models needs no list to be kept anywhere."""
    from zoo import models

    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"zoo.models.{module.name}")


def architectures() -> list[str]:
    """Names that `create` takes, sorted."""
    _import_all_models()
    return sorted(_ARCHITECTURES)


def unknown(kind: str, name: str, known: Iterable[str], many: str = "") -> UserError:
    """The error for a name that is not there: suggests the nearest ones, or lists them all, or says `many` instead."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = many or f"there are {', '.join(known) or 'none'}"
    hint = f"did you mean {' or '.join(near)}?" if near else listed
    return UserError(f"no {kind} is called {name!r}; {hint}")


def options_of(arch: str) -> set[str]:
    """Names of the options that an architecture is created with.

    Raises:
      UserError: no such architecture.
    """
    if arch not in architectures():
        raise unknown("architecture", arch, architectures())
    return inspect.signature(_ARCHITECTURES[arch]).parameters.keys() - {"rngs"}


def create(arch: str, *, seed: int = 0, **options: Any) -> "nnx.Module":
    """A fresh network: `zoo.create("cnn_lstm", num_classes=7)`. `seed` draws its parameters.

    Raises:
      UserError: no such architecture, or an option that it does not have.
    """
    takes = options_of(arch)
    from flax import nnx

    for option in options.keys() - takes:
        raise unknown(f"option of {arch}", option, takes)
    # One program for all parameters: a program for each shape takes twice as long to compile.
    return nnx.jit(lambda: _ARCHITECTURES[arch](**options, rngs=nnx.Rngs(seed)))()


def checkpoints_folder():
    """The folder of cards, in a clone as in an installed wheel."""
    return importlib.resources.files("zoo.checkpoints")


def list_models(pattern: str = "*") -> list[str]:
    """Names of published models that match a shell pattern, sorted."""
    names = [entry.name for entry in checkpoints_folder().iterdir() if (entry / "card.json").is_file()]
    return sorted(fnmatch.filter(names, pattern))


def card(name: str) -> ModelCard:
    """The card of a published model.

    Raises:
      UserError: no such model; the message suggests the nearest name.
    """
    if name not in list_models():
        raise unknown("model", name, list_models())
    return ModelCard.from_json((checkpoints_folder() / name / "card.json").read_text(encoding="utf-8"))
