"""Weight files of the library safetensors: named arrays, nothing to run."""

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from zoo.errors import UserError


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by their names.

    Raises:
      UserError: this is no safetensors file, or a damaged one.
    """
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
