"""How much of what was said is written down."""

from collections.abc import Sequence

import numpy as np


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to put in, leave out or exchange that turn one text into the other (Levenshtein 1966)."""
    row = np.arange(len(heard) + 1)
    for place, word in enumerate(said, 1):
        exchanged = row[:-1] + [word != other for other in heard]
        least = np.minimum(row[1:] + 1, exchanged)
        # What is put in comes from the left: place by place at one more each.
        offsets = np.arange(len(heard) + 1)
        row = np.minimum.accumulate(np.concatenate([[place], least]) - offsets) + offsets
    return int(row[-1])


def word_figures(said: Sequence[str], heard: Sequence[str]) -> dict[str, float]:
    """Of texts and what was heard of them, words between blanks.

    Returns:
      "word_error_rate": edits a word that was said, which may be above 1; "texts_right": the share without any.
    """
    pairs = [(one.split(), other.split()) for one, other in zip(said, heard, strict=True)]
    wrong = [edits(*pair) for pair in pairs]
    words = sum(len(one) for one, _ in pairs)
    return {
        "word_error_rate": sum(wrong) / max(words, 1),
        "texts_right": float(np.mean([not count for count in wrong])),
    }
