"""When each word was said: the path along which a decoder's attention walks through the sound.

As Whisper's published code does it: the attention of the heads that follow the text, normalised over the tokens,
smoothed over time, and aligned by dynamic time warping (Sakoe and Chiba 1978).
"""

import numpy as np
from scipy import ndimage

_SMOOTHED = 7  # steps


def token_starts(looked: np.ndarray, steps: int) -> np.ndarray:
    """At which step of the sound each token begins.

    Args:
      looked: attention weights float32 [heads, tokens, all steps] of the heads that follow the text.
      steps: of the sound; what follows is padding.

    Returns:
      int [tokens], not falling.
    """
    weights = looked[..., :steps]
    weights = weights / weights.sum(-1, keepdims=True)
    spread = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    weights = ndimage.median_filter(weights, (1, 1, _SMOOTHED), mode="mirror").mean(axis=0)
    tokens, times = cheapest_path(-weights)
    return times[np.flatnonzero(np.diff(tokens, prepend=-1))]


def cheapest_path(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the path from the first cell to the last whose cells cost least in all.

    It goes down, to the right or both at once. `costs` is float [rows, columns].
    """
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    # Cells on one diagonal do not depend on each other.
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        total[i + 1, j + 1] = costs[i, j] + np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        # total's cell (i, j) is that of the cell before on the diagonal
        steps = {(i - 1, j - 1): total[i, j], (i - 1, j): total[i, j + 1], (i, j - 1): total[i + 1, j]}
        path.append(min(steps, key=steps.__getitem__))
    found = np.array(path[::-1])
    return found[:, 0], found[:, 1]
