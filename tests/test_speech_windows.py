"""Windows of speech: nothing spoken is lost or doubled, none is too long, and little is held."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.log_mel import SAMPLE_RATE
from zoo.speech_windows import LONGEST, windows

STEP = 1600  # a tenth of a second


def cut(chances: np.ndarray, block: int) -> list[tuple[int, np.ndarray]]:
    """(first step, its samples' numbers) of each window; each sample says the number of its step."""
    samples = np.repeat(np.arange(len(chances), dtype=np.float32), STEP)
    blocks = [samples[start : start + block * STEP] for start in range(0, len(samples), block * STEP)]
    found = windows(blocks, lambda heard: chances[heard[::STEP].astype(int)], STEP)
    return [(round(window.start * SAMPLE_RATE / STEP), window.samples[::STEP]) for window in found]


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.booleans(), st.integers(1, 420)), min_size=1, max_size=12),
    block=st.sampled_from([50, 320, 1000]),
    seed=st.integers(0, 5),
)
def test_all_that_is_spoken_is_in_one_window(pieces, block, seed):
    rng = np.random.default_rng(seed)
    spoken = np.concatenate([np.full(length, is_speech) for is_speech, length in pieces])
    chances = np.where(spoken, rng.uniform(0.5, 1, len(spoken)), rng.uniform(0, 0.49, len(spoken)))
    heard = np.zeros(len(spoken), int)
    for first, numbers in cut(chances, block):
        assert len(numbers) <= LONGEST * SAMPLE_RATE / STEP
        np.testing.assert_array_equal(numbers, np.arange(first, first + len(numbers)))
        heard[numbers.astype(int)] += 1
    assert heard.max(initial=0) <= 1
    assert heard[spoken].all()


def test_silence_gives_none():
    assert cut(np.full(5000, 0.1), 320) == []


def test_a_pause_parts_two_windows_only_where_both_do_not_fit():
    chances = np.zeros(1000)
    chances[10:100] = chances[150:250] = chances[300:460] = 0.9
    assert [(first, first + len(numbers)) for first, numbers in cut(chances, 320)] == [(8, 252), (298, 462)]


def test_speech_without_a_pause_is_cut_where_it_is_most_like_silence():
    chances = np.full(400, 0.9)
    chances[200] = 0.6
    first, second = cut(chances, 320)
    assert first[0] + len(first[1]) == second[0] == 201


def test_the_cut_does_not_depend_on_the_blocks():
    rng = np.random.default_rng(0)
    chances = np.repeat(rng.uniform(0, 1, 300), 20)
    found = [[(first, len(numbers)) for first, numbers in cut(chances, block)] for block in (7, 320, 6000)]
    assert found[0] == found[1] == found[2]
