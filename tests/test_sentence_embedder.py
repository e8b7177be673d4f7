"""MiniLM with its published weights, against the original (golden/make_minilm.py)."""

from pathlib import Path

import numpy as np
import pytest

import zoo


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "minilm.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def embedder():
    return zoo.load("minilm_l6_v2")


@pytest.mark.slow
def test_sentences_equal_the_original_s(embedder, golden):
    """Empty ones, other alphabets and one that is cut off among them; in whatever company they are."""
    sentences = golden["sentences"].tolist()
    counts = [len(encoding.ids) for encoding in embedder.tokenizer.encode_batch(sentences)]
    np.testing.assert_array_equal(counts, golden["lengths"])
    assert max(counts) == embedder.preprocess.most_tokens
    found = embedder.embed(sentences)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, golden["vectors"], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    many = embedder.embed([sentences[number % len(sentences)] for number in range(40)])
    np.testing.assert_allclose(many, golden["vectors"][np.arange(40) % len(sentences)], atol=1e-4)
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.slow
def test_words_are_near_what_they_mean(embedder):
    labels = zoo.card("i3d_kinetics400").labels
    of_labels = embedder.embed(labels)
    for words, label in [
        ("someone wrapping a present", "wrapping present"),
        ("a man plays the six-stringed instrument", "playing guitar"),
        ("cutting someone's hair", "getting a haircut"),
    ]:
        best = np.argsort(-(of_labels @ embedder.embed([words])[0]))[:3]
        assert label in [labels[number] for number in best], words
