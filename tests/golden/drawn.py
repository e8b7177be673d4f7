"""Weights and clips that depend on a name alone, for networks that two frameworks compare: NumPy and nothing else."""

import json
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("networks")


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32, drawn from a generator seeded by the name; in a network of such, activations stay of order one."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))  # the one generator whose stream NumPy keeps for good
    if len(shape) > 1:
        array = draw.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        array = draw.uniform(0.5, 1.5, shape)
    else:
        array = draw.standard_normal(shape) * 0.2
    return np.asarray(array, np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A state dict of drawn tensors."""
    return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}


def clips(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth float32 clips `[B, T, H, W, 3]` or images `[B, H, W, 3]` in [-1, 1], no two frames alike: plane waves."""
    draw = np.random.RandomState(1711_11248)
    places = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in shape[:-1]), indexing="ij")
    result = np.zeros(shape)
    for _ in range(6):
        speeds = [draw.uniform(0, 6), *draw.uniform(-0.6, 0.6, len(places) - 1)]
        phase = sum(place * speed for place, speed in zip(places, speeds, strict=True))
        result += np.sin(phase[..., None] + draw.uniform(0, 2 * np.pi, 3)) * draw.uniform(0, 0.5, 3)
    return np.clip(result, -1, 1).astype(np.float32)


def frames() -> np.ndarray:
    """Two noisy uint8 frames `[2, 45, 70, 3]`."""
    return np.random.RandomState(0).randint(0, 256, (2, 45, 70, 3)).astype(np.uint8)


def summary(x: np.ndarray) -> np.ndarray:
    """Of activations `[B, ..., C]` the mean of each of up to 24 channels, then the means over channels along a line."""
    x = np.asarray(x, np.float64)
    channels = x.reshape(-1, x.shape[-1]).mean(0)[:24]
    line = np.moveaxis(x.mean(-1), 0, -1).reshape(-1)[:: max(1, x[..., 0].size // 24)][:24]
    return np.concatenate([channels, line]).astype(np.float32)


def read(name: str) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """The names and shapes of an original network's state dict, and what it gave."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    shapes = json.loads(str(arrays.pop("state_dict", "{}")))
    return {key: tuple(shape) for key, shape in shapes.items()}, arrays
