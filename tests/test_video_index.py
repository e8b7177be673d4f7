"""Rows found by vectors, by words and by filters, against brute force; and indexes that cannot be used."""

import concurrent.futures
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.small_files import small_files
from zoo import index_description
from zoo.errors import UserError
from zoo.video_analysis import MODELS, VideoSegment
from zoo.video_index import SENTENCES, Filters, VideoIndex, open_index, open_or_make

NAMES = {"classifier": "i3d_kinetics400", **MODELS, "sentences": SENTENCES}
WORDS = ("bottle", "present", "dog", "horse", "cat", "car", "tree", "river")


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def segment(rng: np.random.Generator, start: float) -> VideoSegment:
    first, second, said = rng.choice(WORDS, 3, replace=False)
    picture = rng.integers(0, 256, (9, 16, 3), np.uint8)
    labels, objects = ((str(first), 0.6), ("it's", 0.1)), ((str(second), 0.9),)
    return VideoSegment(
        start, start + 4, labels, (("sky", 0.1),), objects, f"so {said} said", unit(rng, 8), unit(rng, 6), picture
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[VideoIndex, list[tuple[str, VideoSegment, np.ndarray]]]:
    """Ten files of five segments, and (file, segment, text's vector) of each."""
    folder = tmp_path_factory.mktemp("videos")
    index = open_or_make(tmp_path_factory.mktemp("db"), folder, NAMES)
    rng, rows = np.random.default_rng(0), []
    for number in range(10):
        file, texts = f"{'ab'[number % 2]}/o'clock {number}.mp4", unit(rng, 5, 4)
        segments = [segment(rng, 10.0 * part) for part in range(5)]
        index.replace(file, str(number), segments, texts)
        rows += [(file, *pair) for pair in zip(segments, texts, strict=True)]
    index.optimize()
    return open_index(index.path), rows


def placed(hits) -> list[tuple[str, float]]:
    return [(hit.file, hit.start) for hit in hits]


def test_nearest_by_cosine(filled):
    index, rows = filled
    query = unit(np.random.default_rng(1), 3, 8)
    similarities = np.array([segment.embedding for _, segment, _ in rows]) @ query.T
    for column, vector in enumerate(query):
        best = np.argsort(-similarities[:, column])[:7]
        hits = index.near("embedding", vector, 7)
        assert placed(hits) == [(rows[row][0], rows[row][1].start) for row in best]
        np.testing.assert_allclose([hit.score for hit in hits], similarities[best, column], atol=1e-5)
    best = np.argsort(-similarities.max(axis=1))[:7]
    hits = index.near_any("embedding", query, 7)
    assert placed(hits) == [(rows[row][0], rows[row][1].start) for row in best]
    first = rows[best[0]][1]
    assert (hits[0].labels[0][0], hits[0].objects[0][0]) == (first.labels[0][0], first.objects[0][0])
    assert (hits[0].words, hits[0].end) == (first.words, first.end)
    assert hits[0].picture == index.picture(hits[0].key, hits[0].number)
    assert hits[0].picture.startswith(b"\xff\xd8")
    assert index.file_of(hits[0].key) == index.folder / hits[0].file


def test_words_by_meaning_and_by_letter_fused(filled):
    """Reciprocal ranks of both lists; those of the second are of the texts that have the word, best first."""
    index, rows = filled
    vector = unit(np.random.default_rng(2), 4)
    by_meaning = np.argsort(-np.array([text for _, _, text in rows]) @ vector)
    scores = {int(row): 1 / (60 + rank) for rank, row in enumerate(by_meaning, 1)}
    found = index._table.search("horses", query_type="fts").limit(100).to_list()
    where = {(file, segment.start): row for row, (file, segment, _) in enumerate(rows)}
    by_letter = [where[row["file"], row["start_time"]] for row in found]
    assert sorted(by_letter) == [row for row, (_, segment, _) in enumerate(rows) if "horse" in segment.text]
    for rank, row in enumerate(by_letter, 1):
        scores[row] += 1 / (60 + rank)
    hits = index.by_words("horses", vector, 10)
    np.testing.assert_allclose([hit.score for hit in hits], sorted(scores.values())[: -10 - 1 : -1], rtol=1e-5)
    for hit in hits:
        assert hit.score == pytest.approx(scores[where[hit.file, hit.start]], rel=1e-5)
    assert len(index.by_words('no "such AND (thing', vector, 100)) == len(rows)


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        (Filters(file="a/*"), lambda file, segment: file.startswith("a/")),
        (Filters(file="*'clock 3.mp4"), lambda file, segment: "3" in file),
        (Filters(label="dog"), lambda file, segment: segment.text.count("dog") > segment.words.count("dog")),
        (Filters(label="it's"), lambda file, segment: True),
        (Filters(after=12, before=31.5), lambda file, segment: segment.end > 12 and segment.start < 31.5),
        (
            Filters("b/*", "cat", 5),
            lambda file, segment: (
                file.startswith("b/") and segment.end > 5 and "cat" in (segment.labels[0][0], segment.objects[0][0])
            ),
        ),
        (Filters(file="no such file"), lambda file, segment: False),
        (Filters(label="'; DROP TABLE segments; --"), lambda file, segment: False),
    ],
)
def test_filters_leave_nothing_else_and_all_of_it(filled, filters, holds):
    index, rows = filled
    expected = sorted((file, segment.start) for file, segment, _ in rows if holds(file, segment))
    rng = np.random.default_rng(3)
    assert sorted(placed(index.near("embedding", unit(rng, 8), 100, filters))) == expected
    assert sorted(placed(index.near("frame_embedding", unit(rng, 6), 100, filters))) == expected
    assert sorted(placed(index.by_words("tree", unit(rng, 4), 100, filters))) == expected


def test_keys_of_nothing_lead_nowhere(filled):
    index, _ = filled
    for key in ("0" * 32, "../../etc/passwd", "' OR 1=1 --", ""):
        assert index.file_of(key) is None
        assert index.picture(key, 0) is None


def test_a_file_is_replaced_whole(tmp_path):
    index, rng = open_or_make(tmp_path / "db", tmp_path, NAMES), np.random.default_rng(0)
    for file, count in (("a", 4), ("b", 3), ("a", 2), ("a", 5), ("b", 1)):
        index.replace(file, "", [segment(rng, 4.0 * part) for part in range(count)], unit(rng, count, 4))
    rows = index._table.to_arrow().select(["file", "number"]).to_pylist()
    assert sorted((row["file"], row["number"]) for row in rows) == [*(("a", n) for n in range(5)), ("b", 0)]
    index.remove(["a", "never there"])
    assert index.files() == {"b": ""}


def test_several_write_at_once_and_tidy_up(tmp_path):
    """Commits that get into each other's way are tried again; nothing is lost, nothing doubled."""

    def work(name: str) -> None:
        index, rng = open_or_make(tmp_path / "db", tmp_path, NAMES), np.random.default_rng(0)
        for turn in range(6):
            count = 2 + turn % 2
            index.replace(
                f"{name}{turn % 4}", "", [segment(rng, 4.0 * part) for part in range(count)], unit(rng, count, 4)
            )
            if turn % 2:
                index.optimize()

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, "abc")) == [None] * 3
    rows = open_index(tmp_path / "db")._table.to_arrow().select(["file", "number"]).to_pylist()
    expected = [(f"{name}{turn}", number) for name in "abc" for turn in range(4) for number in range(2 + turn % 2)]
    assert sorted((row["file"], row["number"]) for row in rows) == expected


def test_a_refused_write_is_told_in_one_line_and_changes_nothing(tmp_path):
    """Files are let grow to 3,000 bytes only, which is as a full disk to whoever writes them."""
    index, rng = open_or_make(tmp_path / "db", tmp_path, NAMES), np.random.default_rng(0)
    index.replace("a", "", [segment(rng, 0.0)], unit(rng, 1, 4))
    with small_files(3000), pytest.raises(UserError, match=r"cannot write .*db: File too large"):
        index.replace("b", "", [segment(rng, 4.0 * part) for part in range(50)], unit(rng, 50, 4))
    assert open_index(tmp_path / "db").files() == {"a": ""}
    index.replace("b", "", [segment(rng, 0.0)], unit(rng, 1, 4))
    assert index.files() == {"a": "", "b": ""}


def test_an_index_that_cannot_be_used_is_refused_with_the_way_out(tmp_path):
    db = tmp_path / "my db"
    with pytest.raises(UserError, match=r"my db holds no index of videos; make one: zoo search index FOLDER --db"):
        open_index(db)
    index = open_or_make(db, tmp_path, NAMES)
    with pytest.raises(UserError, match="nothing is indexed in"):
        open_index(db)
    rng = np.random.default_rng(0)
    index.replace("a", "", [segment(rng, 0.0)], unit(rng, 1, 4))
    way_out = re.escape(f"rm -r '{db}'; zoo search index {tmp_path} --db '{db}'")
    with pytest.raises(UserError, match=f"made with i3d_kinetics400, not with cnn_lstm_kinetics, .*{way_out}"):
        open_or_make(db, tmp_path, NAMES | {"classifier": "cnn_lstm_kinetics"})
    with pytest.raises(UserError, match=f"is of {tmp_path}, not of {tmp_path / 'other'}; name another folder"):
        open_or_make(db, tmp_path / "other", NAMES)

    note = db / "index.json"
    told = json.loads(note.read_text())
    note.write_text(json.dumps(told | {"models": told["models"] | {"frames": ["efficientnet_lite0_imagenet", "0"]}}))
    uses = (lambda: open_index(db), lambda: open_or_make(db, tmp_path, NAMES))
    for use in uses:
        with pytest.raises(UserError, match="made with other weights of efficientnet_lite0_imagenet"):
            use()
    note.write_text(json.dumps(told | {"format": index_description.FORMAT + 1}))
    for use in uses:
        with pytest.raises(UserError, match=r"is of version 2, and 1 is read here; delete it and build it anew: rm -r"):
            use()
    for damaged in (
        b"{",
        b"\xff",
        b"[]",
        json.dumps(told | {"folder": 3}).encode(),
        json.dumps(told | {"models": {"frames": 1}}).encode(),
    ):
        note.write_bytes(damaged)
        with pytest.raises(UserError, match=r"index\.json is damaged"):
            open_index(db)
    note.write_text(json.dumps(told))
    for rows in (db / "segments.lance" / "data").iterdir():
        rows.rename(tmp_path / "aside")
        with pytest.raises(UserError, match="is damaged or of another LanceDB") as refused:
            open_index(db).files()
        assert ".rs" not in str(refused.value), "where in LanceDB's source it was found out"
        (tmp_path / "aside").rename(rows)
    for version in (db / "segments.lance" / "_versions").iterdir():
        version.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged or of another LanceDB"):
        open_index(Path(db))
