"""How well taggers rank labels over a whole set of videos."""

import numpy as np


def global_average_precision(probabilities: np.ndarray, classes: np.ndarray, top: int = 20) -> float:
    """YouTube-8M's GAP: the average precision of the `top` answers of every video in one list, surest first.

    As in the challenge's code, the recall counts no more than `top` labels a video (Abu-El-Haija et al. 2016,
    arXiv:1609.08675; Lee et al. 2018).

    Args:
      probabilities: [videos, labels].
      classes: 0 or 1, [videos, labels].
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    sure = np.take_along_axis(probabilities, best, axis=1).ravel()
    right = np.take_along_axis(classes, best, axis=1).ravel()
    order = np.argsort(-sure, kind="stable")
    right = right[order] > 0
    wanted = np.minimum(classes.sum(axis=1), top).sum()
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / wanted) if wanted else 0.0
