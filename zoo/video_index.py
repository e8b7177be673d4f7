"""An index of videos: a row a segment in a LanceDB table, found by vectors, by words or both.

The folder of a database holds the table and `index.json`, which tells what the rows were made with. All rows of a file
come, change and go in one commit, so that a killed process leaves a file whole or not at all, and several processes can
write at once.
"""

import dataclasses
import datetime
import fnmatch
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lancedb.index import FTS, IvfPq
from lancedb.rerankers import RRFReranker

from zoo import index_description, segment_table
from zoo.errors import UserError, refused_by_system
from zoo.segment_table import key_of
from zoo.video_analysis import VideoSegment

SENTENCES = "minilm_l6_v2"
"""The published model that stands for what is said of a segment in words."""

_VECTORS = ("embedding", "frame_embedding", "text_embedding")
_FUSED = 60  # reciprocal ranks are 1 / (60 + rank): Cormack, Clarke and Buettcher 2009
_FUSED_ROWS = 100  # of each ranking that is fused
_EXACT_ROWS = 10_000  # below so many rows every vector is compared, which takes 41 ms on two cores of an Intel Xeon
_ROWS_A_PARTITION = 1000
_TRIES = 20  # of a commit, while other processes commit theirs
_NUMBERS_A_BYTE = 8  # of a vector, in the index
_LOOKED_AT = {"nprobes": 150, "refine_factor": 20}  # partitions, and candidates whose whole vectors are compared


@dataclasses.dataclass(frozen=True)
class Hit:
    """A segment that was found.

    Attributes:
      file: its path below the indexed folder, with "/" between names.
      key: the file's key: a hash of `file`.
      number: of the segment in its file, from 0 on.
      start, end: seconds.
      score: cosine similarity from -1 to 1, or of words the sum of reciprocal ranks; the higher the better.
      labels, frame_labels, objects: (label, probability) pairs, best first.
      words: what is said.
      picture: JPEG.
    """

    file: str
    key: str
    number: int
    start: float
    end: float
    score: float
    labels: tuple[tuple[str, float], ...]
    frame_labels: tuple[tuple[str, float], ...]
    objects: tuple[tuple[str, float], ...]
    words: str
    picture: bytes


@dataclasses.dataclass(frozen=True)
class Filters:
    """What hits must be: of files that match a shell pattern, showing a label or object, within a stretch of time."""

    file: str | None = None
    label: str | None = None
    after: float | None = None
    before: float | None = None


class VideoIndex:
    """An open index.

    Attributes:
      folder: the indexed folder.
      models: names of the published models that made the rows, by what each was asked for.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], table: Any):
        self.path, self._table = path, table
        self.folder, self.models = Path(about["folder"]), {role: name for role, (name, _) in about["models"].items()}

    def files(self) -> dict[str, str]:
        """The SHA-256 of every indexed file by its path below the folder."""
        if self._table is None:
            return {}
        rows = self._table.search().where("number = 0").select(["file", "content"])
        return {row["file"]: row["content"] for row in self._read(rows)}

    def __len__(self) -> int:
        return 0 if self._table is None else self._table.count_rows()

    def replace(self, file: str, content: str, segments: Sequence[VideoSegment], text_embeddings: np.ndarray) -> None:
        """Puts a file's segments in the place of those that are there of it, all at once.

        Args:
          content: the file's SHA-256.
          text_embeddings: float32 [segments, features] of the segments' `text`.
        """
        if self._table is None:
            self._table = segment_table.make(self.path, segments[0], text_embeddings[0])
        rows = segment_table.rows(file, content, segments, text_embeddings, self._table.schema)
        merge = self._table.merge_insert(["key", "number"]).when_matched_update_all().when_not_matched_insert_all()
        merge = merge.when_not_matched_by_source_delete(f"key = '{key_of(file)}'")
        self._commit(lambda: merge.execute(rows))

    def remove(self, files: Sequence[str]) -> None:
        """Takes out all rows of files."""
        for start in range(0, len(files), 1000):
            condition = _one_of("key", map(key_of, files[start : start + 1000]))
            self._commit(lambda condition=condition: self._table.delete(condition))

    def optimize(self) -> None:
        """Makes searching fast: many small commits become few files, and large tables get an index over vectors."""
        if self._table is None:
            return
        # Searches that run meanwhile still read what was there a moment ago.
        self._commit(lambda: self._table.optimize(cleanup_older_than=datetime.timedelta(minutes=10)))
        self._make_searchable_by_words()
        if len(self) >= _EXACT_ROWS:
            for column in _VECTORS:
                self.index_vectors(column)

    def index_vectors(self, column: str) -> None:
        """Makes searching by a column of vectors fast in a large table, if it is not already; takes minutes."""
        size = self._table.schema.field(column).type.list_size
        partitions = max(1, len(self) // _ROWS_A_PARTITION)
        config = IvfPq(distance_type="cosine", num_partitions=partitions, num_sub_vectors=size // _NUMBERS_A_BYTE)
        self._index_column(column, config)

    def near(self, column: str, vector: np.ndarray, count: int, filters: Filters | None = None) -> list[Hit]:
        """The segments nearest to a vector, by cosine.

        Args:
          column: "embedding", "frame_embedding" or "text_embedding".
          vector: float32 [features].
        """
        search = self._table.search(vector, vector_column_name=column).distance_type("cosine")
        search = search.nprobes(_LOOKED_AT["nprobes"]).refine_factor(_LOOKED_AT["refine_factor"])
        search = self._filtered(search, filters).select([*_SHOWN, "_distance"]).limit(count)
        return [_hit(row, 1 - row["_distance"]) for row in self._read(search)]

    def near_any(self, column: str, vectors: np.ndarray, count: int, filters: Filters | None = None) -> list[Hit]:
        """The segments nearest to any of several vectors float32 [N, features], each with its best score."""
        best: dict[tuple[str, int], Hit] = {}
        for vector in vectors:
            for hit in self.near(column, vector, count, filters):
                place = hit.key, hit.number
                if place not in best or hit.score > best[place].score:
                    best[place] = hit
        return sorted(best.values(), key=lambda hit: -hit.score)[:count]

    def by_words(self, words: str, vector: np.ndarray, count: int, filters: Filters | None = None) -> list[Hit]:
        """The segments whose text is near in meaning or has the same words: both rankings, fused by reciprocal rank.

        Args:
          vector: float32 [features], what `SENTENCES` makes of the words.
        """
        self._make_searchable_by_words()
        search = self._table.search(query_type="hybrid", vector_column_name="text_embedding", fts_columns="text")
        search = self._filtered(search.vector(vector).text(words).distance_type("cosine"), filters)
        search = search.nprobes(_LOOKED_AT["nprobes"]).refine_factor(_LOOKED_AT["refine_factor"])
        search = search.rerank(RRFReranker(K=_FUSED)).limit(max(count, _FUSED_ROWS))
        return [_hit(row, row["_relevance_score"]) for row in self._read(search)[:count]]

    def all(self, count: int, filters: Filters) -> list[Hit]:
        """Segments that are what the filters say, in the order in which they were indexed; their score is 0."""
        search = self._filtered(self._table.search(), filters).select([*_SHOWN]).limit(count)
        return [_hit(row, 0.0) for row in self._read(search)]

    def embedding(self, key: str, number: int) -> np.ndarray | None:
        """A segment's vector, float32 [features]; None where there is no such segment."""
        found = self._value("embedding", key, number)
        return None if found is None else np.asarray(found, np.float32)

    def picture(self, key: str, number: int) -> bytes | None:
        """A segment's JPEG; None where there is no such segment."""
        return self._value("picture", key, number)

    def file_of(self, key: str) -> Path | None:
        """Where an indexed file lies; None where there is none of that key."""
        file = self._value("file", key, 0)
        return None if file is None else self.folder / file

    def stretch(self, key: str, number: int) -> tuple[float, float] | None:
        """Where a segment begins and ends in its file, in seconds; None where there is no such segment."""
        start, end = (self._value(column, key, number) for column in ("start_time", "end_time"))
        return None if start is None else (start, end)

    def _value(self, column: str, key: str, number: int) -> Any:
        if not re.fullmatch("[0-9a-f]{32}", key) or number >= 2**31:
            return None  # it is none of ours, and might be SQL
        search = self._table.search().where(f"key = '{key}' AND number = {number}").select([column])
        rows = self._read(search)
        return rows[0][column] if rows else None

    def _read(self, search: Any) -> list[dict[str, Any]]:
        """The rows that are found.

        Raises:
          UserError: a file of the table is damaged or gone, which shows only when it is read.
        """
        try:
            return search.to_list()
        except (OSError, RuntimeError) as error:
            raise segment_table.unreadable(self.path, error) from error

    def _make_searchable_by_words(self) -> None:
        """Rows that come later are found too, without the index but for a while."""
        self._index_column("text", FTS())

    def _index_column(self, column: str, config: Any) -> None:
        def change() -> None:
            if not any(index.columns == [column] for index in self._table.list_indices()):
                self._table.create_index(column, config=config)

        self._commit(change)

    def _commit(self, change: Callable[[], Any]) -> None:
        """Where another process has changed the same rows meanwhile, once more on what is there now."""
        for attempt in range(1, _TRIES + 1):
            try:
                change()
                return
            except (OSError, RuntimeError) as error:  # LanceDB's own are RuntimeErrors, told apart by their text
                if reason := refused_by_system(error):
                    raise UserError(f"cannot write {self.path}: {reason}") from error
                if "commit conflict" not in str(error) or attempt == _TRIES:
                    raise
            time.sleep(random.uniform(0, 0.2 * attempt))
            self._table.checkout_latest()

    def _filtered(self, search: Any, filters: Filters | None) -> Any:
        condition = self._condition(filters or Filters())
        return search.where(condition, prefilter=True) if condition else search

    def _condition(self, filters: Filters) -> str:
        """SQL."""
        conditions = []
        if filters.file is not None:
            matching = [file for file in self.files() if fnmatch.fnmatchcase(file, filters.file)]
            conditions.append(_one_of("key", map(key_of, matching)))
        if filters.label is not None:
            label = filters.label.replace("'", "''")
            kinds = (f"array_has({kind}, '{label}')" for kind in ("labels", "frame_labels", "objects"))
            conditions.append(f"({' OR '.join(kinds)})")
        if filters.after is not None:
            conditions.append(f"end_time > {filters.after:f}")
        if filters.before is not None:
            conditions.append(f"start_time < {filters.before:f}")
        return " AND ".join(conditions)


_SHOWN = (
    *("key", "number", "file", "start_time", "end_time", "labels", "probabilities"),
    *("frame_labels", "frame_probabilities", "objects", "scores", "words", "picture"),
)


def open_index(path: Path) -> VideoIndex:
    """An index that is there.

    Raises:
      UserError: none is there, it is damaged or of another version, or a model that made it has other weights now.
    """
    about = index_description.read(path)
    if about is None:
        raise UserError(f"{path} holds no index of videos; make one: {index_description.command(path)}")
    names = {role: name for role, (name, _) in about["models"].items()}
    index_description.check_same(path, about, index_description.describe(Path(about["folder"]), names))
    table = segment_table.open_table(path)
    if table is None:
        raise UserError(f"nothing is indexed in {path} yet; go on: {index_description.command(path)}")
    return VideoIndex(path, about, table)


def open_or_make(path: Path, folder: Path, models: Mapping[str, str]) -> VideoIndex:
    """The index of a folder that is at `path`, or an empty one; of several processes that make one the first does.

    Args:
      models: names of published models by what each is asked for: of them "classifier", "frames" and "sentences" make
        vectors.

    Raises:
      UserError: there is another folder's, another model's or another version's, or something else.
    """
    wanted = index_description.describe(folder, models)
    about = index_description.read(path)
    if about is None:
        index_description.make(path, wanted)
        about = index_description.read(path)
        assert about is not None
    index_description.check_same(path, about, wanted)
    return VideoIndex(path, about, segment_table.open_table(path))


def _one_of(column: str, keys: Iterable[str]) -> str:
    """SQL; of no keys at all it is true of nothing."""
    quoted = ", ".join(f"'{key}'" for key in keys)
    return f"{column} IN ({quoted})" if quoted else "false"


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    return Hit(
        row["file"],
        row["key"],
        row["number"],
        row["start_time"],
        row["end_time"],
        float(score),
        tuple(zip(row["labels"], row["probabilities"], strict=True)),
        tuple(zip(row["frame_labels"], row["frame_probabilities"], strict=True)),
        tuple(zip(row["objects"], row["scores"], strict=True)),
        row["words"],
        row["picture"],
    )
