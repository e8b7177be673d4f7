"""How smoothly drawn clips move, and whether they are copies of what was learnt from."""

from collections.abc import Iterable

import numpy as np

_SHRINK = 4  # pixels to a side of what clips are compared by: a copy stays one, and a sixteenth of the work is left


def jerk(clips: np.ndarray) -> np.ndarray:
    """How far from a straight course what is bright is, at each frame, pixels: float64 [N] of clips [N, T, H, W, C].

    The length of the second difference of the bright pixels' centre, mean over the frames; 0 for what moves at constant
    speed, and for real clips what rounding to pixels and bouncing off walls make of it. Black frames do not count.

    Args:
      clips: uint8, at least three frames.
    """
    light = clips.astype(np.float64).mean(axis=-1)
    mass = light.sum(axis=(2, 3))
    rows, columns = (np.arange(side) for side in light.shape[2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.stack([light.sum(axis=3) @ rows, light.sum(axis=2) @ columns], axis=-1) / mass[..., None]
    turn = np.linalg.norm(np.diff(centre, 2, axis=1), axis=-1)
    counts = np.isfinite(turn)
    return np.where(counts, turn, 0).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)


def nearest(clips: np.ndarray, known: Iterable[np.ndarray]) -> np.ndarray:
    """The distance of each clip to the nearest of the known ones: float64 [N], root mean square of levels 0 to 255.

    Both are compared at a quarter of their size, the mean of each 4x4 pixels.

    Args:
      clips: uint8 [N, T, H, W, C].
      known: such clips, any number at a time.
    """
    ours = _small(clips)
    least = np.full(len(ours), np.inf)
    for part in known:
        theirs = _small(part)
        squared = np.square(ours).sum(axis=1)[:, None] + np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T
        least = np.minimum(least, squared.min(axis=1))
    return np.sqrt(least.clip(0) / ours.shape[1])


def copied(distances: np.ndarray, of_others: np.ndarray) -> float:
    """The share of clips nearer to a known one than 99 in 100 of others that cannot be copies: 0.01 without copying."""
    return float((distances < np.quantile(of_others, 0.01)).mean())


def _small(clips: np.ndarray) -> np.ndarray:
    n, t, h, w, c = clips.shape
    cells = clips.reshape(n, t, h // _SHRINK, _SHRINK, w // _SHRINK, _SHRINK, c)
    return cells.mean(axis=(3, 5), dtype=np.float32).reshape(n, -1)
