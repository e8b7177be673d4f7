"""How well something is found again."""

import numpy as np


def mean_average_precision(vectors: np.ndarray) -> float:
    """Of copies that ask for what they are copies of, among all that there is, by cosines.

    One answer is right, so the average precision of a question is 1 / its rank; of equal answers the right one is last.

    Args:
      vectors: float [N, copies, F]; the first of a row is what is to be found, the others ask for it.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directions = vectors / np.maximum(lengths, 1e-12)
    there, asked = directions[:, 0], directions[:, 1:]
    likeness = np.einsum("ncf,mf->ncm", asked, there)
    right = np.einsum("ncn->nc", likeness)[..., None]
    return float((1 / (likeness >= right).sum(axis=-1)).mean())
