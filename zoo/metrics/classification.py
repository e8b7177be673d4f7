"""How a classifier's right answers are spread over frequent and rare classes."""

from collections.abc import Mapping, Sequence

import numpy as np


def by_class(right: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of right answers of each class, float64 [classes]; NaN for a class without examples.

    Args:
      right: bool [N].
      labels: int [N], the right classes.
    """
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=right, minlength=num_classes)
    return np.divide(sums, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def head_middle_tail(shares: np.ndarray, counts: Sequence[int]) -> Mapping[str, float]:
    """Mean share of right answers over the classes that are frequent, middling and rare in training.

    Thirds of the classes by `counts`, the earlier ones taking what does not divide. Classes whose share is NaN are left
    out, and so is a third that has no others.
    """
    order = np.argsort(-np.asarray(counts), kind="stable")
    found = {}
    for name, third in zip(("head", "middle", "tail"), np.array_split(order, 3), strict=True):
        known = shares[third][~np.isnan(shares[third])]
        if len(known):
            found[name] = float(known.mean())
    return found
