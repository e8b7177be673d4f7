"""A compiled zoo of video models in JAX: a name leads to a card, a card to weights and preprocessing.

    predictor = zoo.load("i3d_kinetics400")
    predictor("cup.mp4")[:5]

`load` gives a published model ready to use, `create` a fresh network, `list_models` and `card` tell what there is.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.predictor import load
    from zoo.registry import card, create, list_models

__all__ = ["card", "create", "list_models", "load"]


def __getattr__(name: str) -> Any:
    """The public names are imported at first use: `import zoo` alone does not wait for JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("zoo.predictor" if name == "load" else "zoo.registry"), name)
