"""The search against all texts there are, with a model whose next token depends on the last one alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models.whisper_search import Vocabulary, search

# 0-2 words, 3 end, 4 start, 5 previous, 6 no_speech, 7 no_stamps, 8-11 time stamps
SMALL = Vocabulary(end=3, start=4, previous=5, no_speech=6, no_stamps=7, stamps=8, suppressed=(4, 5, 6))
TOKENS, STEPS = 12, 5


class Chain:
    """Logits `[tokens, tokens]` of the next token by the last; two windows with a table each."""

    def __init__(self, tables: np.ndarray):
        self.tables = jnp.asarray(tables)

    def remember(self, encoded, slots):
        return {"window": encoded[:, 0, 0].astype(int), "written": jnp.zeros((len(encoded), slots), int)}

    def decode(self, tokens, cache, slot, places=None, seen=None):
        return self.tables[cache["window"][:, None], tokens], cache, None


def allowed(text: tuple[int, ...]) -> list[int]:
    """The tokens that may follow, by the rules in words."""
    stamps = [token for token in text if token >= SMALL.stamps]
    if not text:
        return list(range(SMALL.stamps, TOKENS))
    words, times = list(range(SMALL.end)), list(range(SMALL.stamps, TOKENS))
    if text[-1] >= SMALL.stamps:
        if len(text) < 2 or text[-2] >= SMALL.stamps:
            return [*words, SMALL.end]  # a pair is complete, or the first stamp: text
        return [SMALL.end, *(time for time in times if time >= text[-1])]
    return [*words, SMALL.end, *(time for time in times if time > stamps[-1])]


def chances(table: np.ndarray, text: tuple[int, ...], last: int) -> dict[int, float]:
    """Log-probabilities of what may follow."""
    may = allowed(text)
    logits = {token: table[last, token] for token in may}
    total = np.log(sum(np.exp(value) for value in logits.values()))
    logs = {token: value - total for token, value in logits.items()}
    stamps = [value for token, value in logs.items() if token >= SMALL.stamps]
    others = [value for token, value in logs.items() if token < SMALL.stamps]
    if stamps and others and np.log(np.exp(stamps).sum()) > max(others):
        total = np.log(np.exp(stamps).sum())
        return {token: value - total for token, value in logs.items() if token >= SMALL.stamps}
    return logs


def texts(table: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every text of at most `STEPS` tokens and the mean log-probability of its tokens and its end."""
    found, going = {}, {(): 0.0}
    for _ in range(STEPS):
        grown = {}
        for text, score in going.items():
            for token, chance in chances(table, text, text[-1] if text else SMALL.start).items():
                if token == SMALL.end:
                    found[text] = (score + chance) / (len(text) + 1)
                else:
                    grown[*text, token] = score + chance
        going = grown
    return found | {text: score / (len(text) + 1) for text, score in going.items()}


def run(tables: np.ndarray, beams: int, temperature: float = 0.0, seed: int = 0):
    encoded = jnp.arange(len(tables), dtype=jnp.float32)[:, None, None]
    return jax.jit(search, static_argnames=("model", "vocabulary", "beams", "steps"))(
        Chain(tables),
        encoded,
        jnp.array([SMALL.previous, 0, SMALL.start]),
        jnp.float32(temperature),
        jax.random.key(seed),
        vocabulary=SMALL,
        beams=beams,
        steps=STEPS,
    )


@pytest.fixture(scope="module")
def tables() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1.5, (2, TOKENS, TOKENS)).astype(np.float32)


def test_with_enough_beams_it_finds_the_likeliest_of_all_texts(tables):
    written = run(tables, beams=400)
    for window, table in enumerate(tables):
        known = texts(table)
        text = tuple(written.tokens[window][: written.lengths[window]].tolist())
        assert text == max(known, key=known.__getitem__)
        assert written.log_probability[window] == pytest.approx(known[text], abs=1e-4)


def test_greedy_takes_the_likeliest_token_each_time(tables):
    written = run(tables, beams=1)
    for window, table in enumerate(tables):
        text: tuple[int, ...] = ()
        for _ in range(STEPS):
            follow = chances(table, text, text[-1] if text else SMALL.start)
            token = max(follow, key=follow.__getitem__)
            if token == SMALL.end:
                break
            text = (*text, token)
        assert tuple(written.tokens[window][: written.lengths[window]].tolist()) == text
        assert written.no_speech[window] == pytest.approx(
            float(jax.nn.softmax(table[SMALL.start])[SMALL.no_speech]), abs=1e-6
        )


def test_drawn_texts_keep_the_rules_and_differ(tables):
    seen = set()
    for seed in range(8):
        written = run(tables, beams=1, temperature=1.0, seed=seed)
        for window, table in enumerate(tables):
            text = tuple(written.tokens[window][: written.lengths[window]].tolist())
            assert text in texts(table)
            seen.add((window, text))
    assert len(seen) > 4
    for window, text in itertools.islice(seen, 3):
        assert text[0] >= SMALL.stamps, (window, text)
