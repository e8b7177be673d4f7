"""Slices of TPU pods by name: how many chips they have, and how the chips hang together."""

import math
from dataclasses import dataclass

from benchmarks.tpu_static.chips import TPUS, Chip
from zoo.errors import UserError

# Google Cloud's pages on each chip list these; libtpu takes them as `v5e:4x8`.
_FLAT = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
_CUBIC = {
    1: (1, 1, 1),
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (2, 2, 4),
    32: (2, 4, 4),
    64: (4, 4, 4),
    128: (4, 4, 8),
    256: (4, 8, 8),
    512: (8, 8, 8),
}
_SHAPES = {"v4": _CUBIC, "v5e": _FLAT, "v5p": _CUBIC, "v6e": _FLAT}


@dataclass(frozen=True)
class Slice:
    """Chips of one kind, and how many of them lie along each axis of their network."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        return f"{self.chip.name}-{self.chips}"

    @property
    def topology(self) -> str:
        """The name by which libtpu knows it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def hops(self) -> int:
        """Links from one corner to the other: what a ring over one axis after the other passes through."""
        return sum(size - 1 for size in self.shape)

    def smaller(self) -> list["Slice"]:
        """The slices of the same chip up to this one, the smallest first."""
        return [Slice(self.chip, shape) for shape in _SHAPES[self.chip.name].values() if math.prod(shape) <= self.chips]


# The number counts chips. Google's own names of v4 and v5p count TensorCores, two a chip: its v5p-8 is our v5p-4.
SLICES = {
    f"{chip}-{count}": Slice(TPUS[chip], shape) for chip, shapes in _SHAPES.items() for count, shape in shapes.items()
}


def slice_called(name: str) -> Slice:
    """A slice by its name, such as v5e-256: a chip and how many of them.

    Raises:
      UserError: there is none; it lists those that there are.
    """
    if name not in SLICES:
        raise UserError(f"no slice is called {name!r} (the number counts chips); there are {', '.join(SLICES)}")
    return SLICES[name]
