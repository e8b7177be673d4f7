"""CTC's searches against all paths there are."""

import itertools

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax

from zoo.models.ctc_search import beam_search, greedy, lexicon_of, spikes

STEPS, CLASSES = 5, 3
TEXTS = 2**6 - 1  # of up to five symbols out of two

LOGITS = arrays.arrays(np.float32, (STEPS, CLASSES), elements=st.floats(-5, 5, width=32))


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


def chances_of(logits: np.ndarray) -> np.ndarray:
    return log_softmax(logits.astype(np.float64), axis=-1)


def every_text(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of each text, as the sum over all paths."""
    found: dict[tuple[int, ...], float] = {}
    chances = np.exp(chances_of(logits))
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        chance = np.prod([chances[step, symbol] for step, symbol in enumerate(path)])
        found[collapsed(path)] = found.get(collapsed(path), 0.0) + float(chance)
    return found


def told(symbols: np.ndarray) -> tuple[int, ...]:
    return tuple(int(symbol) for symbol in symbols if symbol)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.integers(0, STEPS))
def test_a_beam_for_all_texts_has_their_probabilities(logits, steps):
    spelt = beam_search(logits[None], np.array([steps]), beams=TEXTS, longest=STEPS)
    found = {
        told(symbols): np.exp(chance)
        for symbols, chance in zip(np.asarray(spelt.symbols[0]), np.asarray(spelt.log_probability[0]), strict=True)
        if chance > -np.inf
    }
    wanted = every_text(logits[:steps])
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[text] for text in wanted], list(wanted.values()), rtol=1e-3, atol=1e-6)
    assert np.all(np.diff(np.asarray(spelt.log_probability[0])[: len(found)]) <= 0)


@settings(max_examples=15, deadline=None)
@given(arrays.arrays(np.float32, (STEPS, 4), elements=st.floats(-5, 5, width=32)))
def test_a_lexicon_leaves_the_probabilities_of_its_texts(logits):
    """Words "a", "ab" and "bb": all their texts of five symbols at most, and no others."""
    symbols = ("", " ", "a", "b")
    texts = {tuple(symbols.index(letter) for letter in text) for text in texts_of(("a", "ab", "bb"))}
    lexicon = lexicon_of(("a", "ab", "bb"), symbols)
    spelt = beam_search(logits[None], np.array([STEPS]), lexicon, beams=100, longest=STEPS)
    found = {
        told(text): np.exp(chance)
        for text, chance in zip(np.asarray(spelt.symbols[0]), np.asarray(spelt.log_probability[0]), strict=True)
        if chance > -np.inf
    }
    wanted = {text: chance for text, chance in every_text(logits).items() if text in texts}
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[text] for text in wanted], list(wanted.values()), rtol=1e-3, atol=1e-7)


def texts_of(words: tuple[str, ...]) -> set[str]:
    """Of up to three words and five symbols; a space may be the last."""
    texts = {" ".join(several) for count in range(4) for several in itertools.product(words, repeat=count)}
    return {text for text in texts | {f"{text} " for text in texts - {""}} if len(text) <= STEPS}


@settings(max_examples=40, deadline=None)
@given(LOGITS)
def test_a_narrow_beam_knows_no_more_than_there_is(logits):
    spelt = beam_search(logits[None], np.array([STEPS]), beams=4, longest=STEPS)
    texts = [told(symbols) for symbols in np.asarray(spelt.symbols[0])]
    wanted = every_text(logits)
    assert len(set(texts)) == len(texts), "no text is there twice"
    for text, chance in zip(texts, np.exp(np.asarray(spelt.log_probability[0])), strict=True):
        assert chance <= wanted[text] * (1 + 1e-3) + 1e-7


def test_the_likeliest_text_is_not_always_on_the_likeliest_path():
    """Graves et al.: blank twice is the likeliest path, with 0.36, and "1" the likeliest text, with 0.64."""
    logits = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]], np.float32))
    assert told(np.asarray(greedy(jnp.asarray(logits), jnp.array([2]), 2))[0]) == ()
    spelt = beam_search(logits, np.array([2]), beams=3, longest=2)
    assert told(np.asarray(spelt.symbols[0, 0])) == (1,)
    np.testing.assert_allclose(np.exp(spelt.log_probability[0]), [0.64, 0.36, 0.0], atol=1e-6)


def test_texts_that_are_too_long_are_not_followed():
    logits = np.log(np.array([[[0.2, 0.8, 0.0001], [0.2, 0.0001, 0.8], [0.2, 0.8, 0.0001]]], np.float32))
    spelt = beam_search(logits, np.array([3]), beams=8, longest=2)
    assert all(len(told(symbols)) <= 2 for symbols in np.asarray(spelt.symbols[0]))


def test_greedy_spells_the_likeliest_path():
    rng = np.random.default_rng(0)
    logits, steps = rng.normal(size=(6, 20, 4)).astype(np.float32), np.array([20, 13, 0, 1, 7, 20])
    spelt = np.asarray(greedy(jnp.asarray(logits), jnp.asarray(steps), 6))
    for row, of_row, count in zip(spelt, logits, steps, strict=True):
        assert told(row) == collapsed(tuple(of_row[:count].argmax(axis=1)))[:6]


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.lists(st.integers(1, CLASSES - 1), min_size=1, max_size=3))
def test_spikes_are_those_of_the_likeliest_path(logits, text):
    symbols = tuple(text)
    chances = chances_of(logits)

    def likelihood(path: tuple[int, ...]) -> float:
        return sum(chances[step, symbol] for step, symbol in enumerate(path))

    paths = [path for path in itertools.product(range(CLASSES), repeat=STEPS) if collapsed(path) == symbols]
    found = spikes(chances, np.array(symbols))
    best = max(map(likelihood, paths))
    # Several paths may be as likely: one of them has its symbols where they were found.
    begins = [
        [step for step in range(STEPS) if path[step] and (step == 0 or path[step] != path[step - 1])]
        for path in paths
        if likelihood(path) > best - 1e-9
    ]
    assert found.tolist() in begins
