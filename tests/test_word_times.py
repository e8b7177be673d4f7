"""The alignment of words, against every path there is."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.word_times import cheapest_path, token_starts


def cheapest(costs: np.ndarray, i: int = 0, j: int = 0) -> float:
    """By trying all paths."""
    rows, columns = costs.shape
    if (i, j) == (rows - 1, columns - 1):
        return costs[i, j]
    steps = [(i + 1, j + 1), (i + 1, j), (i, j + 1)]
    return costs[i, j] + min(cheapest(costs, *step) for step in steps if step[0] < rows and step[1] < columns)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_no_path_is_cheaper(rows, columns, seed):
    costs = np.random.default_rng(seed).normal(size=(rows, columns))
    i, j = cheapest_path(costs)
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, rows - 1, columns - 1)
    moves = set(zip(np.diff(i).tolist(), np.diff(j).tolist(), strict=True))
    assert moves <= {(1, 1), (1, 0), (0, 1)}
    np.testing.assert_allclose(costs[i, j].sum(), cheapest(costs))


def test_tokens_begin_where_attention_moves_on():
    begins = [0, 30, 42, 80]
    looked = np.full((3, 4, 200), 1e-3)
    for token, (start, end) in enumerate(zip(begins, [*begins[1:], 120], strict=True)):
        looked[:, token, start:end] = 1.0
    looked /= looked.sum(-1, keepdims=True)
    np.testing.assert_allclose(token_starts(looked, 120), begins, atol=3)
