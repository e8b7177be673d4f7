"""The benchmark of retrieval: ranks by hand, copies that are what they say, vectors like the real ones."""

import dataclasses

import numpy as np
import pytest

from benchmarks import retrieval
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.video_index import VideoIndex, open_or_make


def test_rank_leaves_out_the_copy_s_own_film():
    vectors = np.eye(4, dtype=np.float32)
    gallery = [vectors[:1], vectors[1:2], np.stack([vectors[2], 0.9 * vectors[0]]), vectors[3:]]
    query = vectors[:1] + 0.1 * vectors[1:2]
    assert retrieval.rank(query, gallery, ["a", "b", "b", "d"], 1, "b") == 2
    assert retrieval.rank(query, gallery, ["a", "b", "b", "d"], 1) == 3, "the film's other stretch counts"
    assert retrieval.rank(query, gallery, ["a", "b", "c", "d"], 0, "a") == 1
    assert retrieval.rank(query, gallery, ["a", "b", "c", "d"], 1, "b") == 3
    assert retrieval.rank(query, gallery, ["b", "b", "c", "d"], 1, "b") == 2
    assert retrieval.rank(np.concatenate([query, 2 * vectors[1:2]]), gallery, ["a", "b", "c", "d"], 1, "b") == 1


def test_copies():
    clip = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), np.uint8)
    made = {kind: retrieval.copied(clip, kind) for kind in retrieval.KINDS}
    assert made["re-encoded"][1] > made["cropped"][1] == made["captioned"][1]
    np.testing.assert_array_equal(made["cropped"][0], clip[:, 6:54, 8:72])
    np.testing.assert_array_equal(made["flipped"][0][..., ::-1, :], clip)
    np.testing.assert_array_equal(made["slowed"][0][1::2], clip)
    captioned = made["captioned"][0]
    np.testing.assert_array_equal(captioned[:, :50], clip[:, :50])
    assert captioned[:, 50:].max() > 200 > captioned[:, 50:].mean() * 4
    assert len(retrieval.encoded(clip, 38)) < len(retrieval.encoded(clip, 20))
    with open_video(retrieval.encoded(clip, 20)) as reader:
        assert (reader.frame_rate, reader.height, reader.width, reader.duration) == (16, 60, 80, 0.25)


def test_vectors_are_like_the_real_ones():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 6)).astype(np.float32) * [1, 2, 3, 0.1, 0.1, 1] + 5
    real = (real / np.linalg.norm(real, axis=1, keepdims=True)).astype(np.float32)
    drawn = retrieval.like(real, rng)(20_000)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(drawn.mean(axis=0), real.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(real.T), atol=0.01)


@pytest.mark.slow
def test_speed_of_a_small_database(tmp_path):
    rng = np.random.default_rng(0)
    draw = retrieval.like(rng.normal(size=(50, 64)).astype(np.float32), rng)
    retrieval._filled(tmp_path / "db", draw, 300)
    found: VideoIndex = open_or_make(tmp_path / "db", tmp_path / "db", retrieval.MADE_WITH)
    assert len(found) == 300
    arguments = retrieval.Arguments("speed", rows=400, queries=20, db=tmp_path / "db", place=tmp_path / "other")
    for _ in range(2):  # made, and found again
        header, (row,) = retrieval.speed(arguments)
        assert header == "vectors like 300 real ones"
        assert (row["rows"], row["features"], row["recall@10"]) == (400, 64, "1.0000")
    with pytest.raises(UserError, match=r"holds 400 vectors, not 500; remove it, or name another --place"):
        retrieval.speed(dataclasses.replace(arguments, rows=500))


def test_vectors_are_made_once_and_kept(tmp_path):
    seen = []

    def make(clip: np.ndarray, *how: int) -> np.ndarray:
        seen.append((clip.shape, *how))
        if not clip.any():
            raise UserError("cannot be read")
        return np.full((2, 3), clip.sum() + sum(how), np.float32)

    square, row = np.ones((2, 2), np.uint8), np.ones((1, 4), np.uint8)
    for _ in range(2):
        kept = retrieval.KeptVectors(make, tmp_path / "vectors")
        np.testing.assert_array_equal(kept(square, 20), np.full((2, 3), 24, np.float32))
        np.testing.assert_array_equal(kept(square, 38), np.full((2, 3), 42, np.float32))
        np.testing.assert_array_equal(kept(row), np.full((2, 3), 4, np.float32))
        with pytest.raises(UserError):
            kept(np.zeros((2, 2), np.uint8), 20)
    made = [((2, 2), 20), ((2, 2), 38), ((1, 4),)]
    assert seen == [*made, ((2, 2), 20), ((2, 2), 20)]
