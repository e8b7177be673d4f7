"""Silero VAD as the package silero-vad 6.2.3 holds it: safetensors of the network for 16,000 samples a second."""

from typing import Any

import numpy as np
from flax import nnx

from zoo.convert import Row, apply_table, as_is
from zoo.convert.pytorch import dense_kernel, kernel
from zoo.convert.safetensors import read

__all__ = ["convert", "read"]

_CELL = "recurrent.forward.0.cell"

TABLE: list[Row] = [
    (r"stft_conv\.weight", "spectrum.kernel", kernel),
    *((rf"conv{number + 1}\.weight", f"convs.{number}.kernel", kernel) for number in range(4)),
    *((rf"conv{number + 1}\.bias", f"convs.{number}.bias", as_is) for number in range(4)),
    (r"lstm_cell\.weight_ih", f"{_CELL}.dense_i.kernel", dense_kernel),
    (r"lstm_cell\.weight_hh", f"{_CELL}.dense_h.kernel", dense_kernel),
    (r"lstm_cell\.bias", f"{_CELL}.dense_h.bias", as_is),
    (r"final_conv\.weight", "head.kernel", lambda array: dense_kernel(np.squeeze(array, -1))),
    (r"final_conv\.bias", "head.bias", as_is),
]


def convert(foreign: dict[str, np.ndarray], model: nnx.Module) -> dict[str, Any]:
    """Our weight tree of a Silero VAD from what `read` gives: its two biases of the LSTM are one of ours.

    Raises:
      UserError: names or shapes that do not fit; all of them are told.
    """
    together = dict(foreign)
    biases = [together.pop(name) for name in ("lstm_cell.bias_ih", "lstm_cell.bias_hh") if name in together]
    if len(biases) == 2 and biases[0].shape == biases[1].shape:
        together["lstm_cell.bias"] = biases[0] + biases[1]
    return apply_table(TABLE, together, model)
