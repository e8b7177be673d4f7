"""Weight files of CTranslate2 (`model.bin`, format version 6): named arrays one after the other, nothing to run."""

import struct
from pathlib import Path

import numpy as np

from zoo.errors import UserError

_VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # by their number in the file; 5 is bfloat16


class _Bytes:
    """A file's bytes, taken from the front."""

    def __init__(self, path: Path):
        self.path, self.left = path, memoryview(path.read_bytes())

    def take(self, count: int) -> memoryview:
        if count > len(self.left):
            raise UserError(f"{self.path} is cut short: {count:,} bytes are wanted where {len(self.left):,} are left")
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8", "replace")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by their names, without the settings that lie among them as single numbers.

    Raises:
      UserError: the file is of another kind or version, is cut short, or holds arrays in a precision not known here.
    """
    file = _Bytes(Path(path))
    version = file.number("I")
    if version != _VERSION:
        raise UserError(f"{path} is not a CTranslate2 file of version {_VERSION}: it begins with {version}")
    file.text()  # the kind of network
    file.number("I")  # the revision of its layout
    arrays = {}
    for _ in range(file.number("I")):
        name = file.text()
        shape = tuple(file.number("I") for _ in range(file.number("B")))
        kind, size = file.number("B"), file.number("I")
        if kind >= len(_DTYPES):
            raise UserError(f"{path} holds {name} in a precision that is not read here (number {kind})")
        values = np.frombuffer(file.take(size), _DTYPES[kind])
        if values.size != np.prod(shape, dtype=int):
            raise UserError(f"{path} holds {values.size} values for {name} {shape}")
        if shape:
            arrays[name] = values.reshape(shape)
    return arrays
