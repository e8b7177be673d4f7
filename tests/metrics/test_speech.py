"""Word error rates against jiwer's."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.metrics.speech import edits, word_figures

TEXT = st.lists(st.sampled_from(("one", "two", "go")), max_size=7)


@given(TEXT.filter(bool), TEXT)
def test_edits_are_jiwers(said, heard):
    assert edits(said, heard) / len(said) == pytest.approx(jiwer.wer(" ".join(said), " ".join(heard)))


def test_figures_of_several_texts():
    said, heard = ["one two", "stop", "go on left"], ["one two", "stop stop", "go right"]
    figures = word_figures(said, heard)
    assert figures["word_error_rate"] == pytest.approx(jiwer.wer(said, heard))
    assert figures["texts_right"] == pytest.approx(1 / 3)
    assert word_figures([""], ["up"])["word_error_rate"] == 1, "nobody spoke, and a word was heard"
