"""Epochs in which rare classes come more often than there are examples of them."""

import numpy as np

from zoo.errors import UserError

SAMPLERS = {"instance": 1.0, "square_root": 0.5, "balanced": 0.0}
"""To which power of its size a class is seen: every example alike, or every class alike (Kang et al. 2020, "Decoupling
Representation and Classifier for Long-Tailed Recognition", arXiv:1910.09217)."""


def epoch_of(labels: np.ndarray, sampler: str, seed: int) -> np.ndarray:
    """The indices of one epoch, int64, in no particular order.

    The largest class is seen once; class c as often as `size_c ** power * largest ** (1 - power)` says, each of its
    examples as often as any other or once more. How many there are is the same for every seed.

    Args:
      labels: int [N], the class of each example.
      sampler: a name in `SAMPLERS`.

    Raises:
      UserError: no such sampler.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"no sampler is called {sampler!r}; there are {', '.join(SAMPLERS)}")
    power, rng = SAMPLERS[sampler], np.random.default_rng(seed)
    counts = np.bincount(labels)
    chosen = []
    for label in np.flatnonzero(counts):
        wanted = round(counts[label] ** power * counts.max() ** (1 - power))
        chosen.append(np.resize(rng.permutation(np.flatnonzero(labels == label)), wanted))
    return np.concatenate(chosen)
