"""A video taken apart by stand-ins: which frames, words and labels belong to which stretch."""

from pathlib import Path

import numpy as np
import pytest

from tests import colourists
from tests.clips import write_clip
from tests.colourists import GREEN, LABELS, RED, SAID, film
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.listener import Segment, Word
from zoo.shot_detector import Shot
from zoo.video_analysis import VideoAnalyser, VideoSegment, stretches, words_within


@pytest.fixture
def analyse(monkeypatch: pytest.MonkeyPatch) -> VideoAnalyser:
    colourists.install(monkeypatch.setattr)
    return VideoAnalyser()


def test_long_shots_are_parted_evenly():
    shots = [Shot(0, 9, 0.0, 9.9, 0.9), Shot(12, 99, 10.4, 35.4, 0.9), Shot(100, 100, 36.0, 36.04, None)]
    found = stretches(shots)
    assert found[0] == (0.0, 9.9)
    np.testing.assert_allclose(
        found[1:4], [(10.4, 10.4 + 25 / 3), (10.4 + 25 / 3, 10.4 + 50 / 3), (10.4 + 50 / 3, 35.4)]
    )
    assert found[4] == (36.0, 36.04)
    assert stretches([Shot(0, 0, 0.0, 10.0, None)]) == [(0.0, 10.0)]


def test_a_word_belongs_where_its_middle_is():
    said = Segment("a b c", 0.0, 3.0, (Word("a", 0.0, 1.0), Word("b", 0.8, 1.6), Word("c", 2.0, 3.0)), -0.1, False)
    assert words_within([said], 0.0, 1.2) == "a"
    assert words_within([said], 1.2, 2.5) == "b"
    assert words_within([said, said], 2.5, 9.0) == "c c"
    assert words_within([said], 5.0, 9.0) == ""


def test_text_is_what_is_likely_and_what_is_said():
    def text(labels, frame_labels=(), objects=(), words="") -> str:
        none = np.zeros(0)
        return VideoSegment(0.0, 1.0, labels, frame_labels, objects, words, none, none, none).text

    assert text((("a", 0.4), ("b", 0.2), ("c", 0.19))) == "a, b"
    assert text((("a", 0.15), ("b", 0.1)), (), (("person", 0.5),)) == "person"
    assert text((("a", 0.15), ("b", 0.1))) == "a"
    told = text((("a", 0.4),), (("cat, tabby", 0.3), ("dog", 0.1)), (("person", 0.9), ("cup", 0.5)), "Hello.")
    assert told == "a. cat. person, cup. Hello."


def test_each_stretch_has_its_own_labels_words_and_picture(analyse, tmp_path: Path):
    path = film(tmp_path / "film.mp4", RED, GREEN, codec="libx264", audio=1.0, codec_options={"crf": "5"})
    done: list[float] = []
    found = analyse(path, done.append)
    assert [(part.start, part.end) for part in found.segments] == [(0.0, 0.5), (0.5, 1.0)]
    assert done == [0.5, 1.0]
    assert (found.width, found.height, found.frame_rate, found.duration) == (64, 48, 20, 1.0)
    assert [part.labels[0][0] for part in found.segments] == list(LABELS[:2])
    assert [part.frame_labels[0][0] for part in found.segments] == list(LABELS[:2])
    assert " ".join(part.words for part in found.segments) == SAID
    for part, channel in zip(found.segments, (0, 1), strict=True):
        assert part.picture.shape == (240, 320, 3)
        assert part.picture.mean(axis=(0, 1)).argmax() == channel
        for vector in (part.embedding, part.frame_embedding):
            assert vector.dtype == np.float32
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(analyse.embeddings(path), [part.embedding for part in found.segments])


def test_a_copy_at_another_pace_and_size_shows_the_same(analyse, tmp_path: Path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, (40, 8, 8, 3), np.uint8).repeat(96, axis=1).repeat(96, axis=2)
    whole = write_clip(tmp_path / "whole.mkv", frames, fps=20, codec="ffv1")
    slow = write_clip(tmp_path / "slow.mkv", frames[:, ::2, ::2], fps=10, codec="ffv1")
    ours, theirs = (analyse.embeddings(path) for path in (whole, slow))
    assert ours.shape == theirs.shape == (1, 192)
    assert float(ours[0] @ theirs[0]) > 0.999


def test_a_still_picture_and_a_film_s_frame(analyse, tmp_path: Path):
    path = film(tmp_path / "film.mkv", RED)
    with open_video(path) as reader:
        still = write_clip(tmp_path / "still.png", reader.frames_at([0.2]), codec="png", container="image2")
    (part,) = analyse(path).segments
    assert float(part.frame_embedding @ analyse.frame_embedding(still)) > 0.999
    with pytest.raises(UserError, match="there is no file"):
        analyse(tmp_path / "none.mkv")
