"""How well taggers rank labels over a whole set of videos."""

import numpy as np


def global_average_precision(probabilities: np.ndarray, right: np.ndarray, wanted: np.ndarray) -> float:
    """YouTube-8M's GAP: the average precision of the surest answers, 20 there, of every video in one list.

    As in the challenge's code, the recall counts no more labels of a video than it has answers (Abu-El-Haija et al.
    2016, arXiv:1609.08675; Lee et al. 2018).

    Args:
      probabilities: of the answers, [videos, answers], the surest first.
      right: which of them are right, 0 or 1, [videos, answers].
      wanted: how many labels each video has, [videos].
    """
    order = np.argsort(-probabilities.ravel(), kind="stable")
    hits = right.ravel()[order] > 0
    total = np.minimum(wanted, right.shape[1]).sum()
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / total) if total else 0.0
