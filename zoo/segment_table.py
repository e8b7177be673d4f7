"""The columns of an index of videos, a file's rows, and the LanceDB table that holds them."""

import datetime
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from PIL import Image

from zoo import hub, index_description
from zoo.errors import UserError
from zoo.video_analysis import VideoSegment

_NAME = "segments"
_PICTURE_QUALITY = 80


def key_of(file: str) -> str:
    """A name for a file that is safe in addresses and in SQL."""
    return hashlib.sha256(file.encode()).hexdigest()[:32]


def open_table(path: Path) -> Any:
    """The table in the folder of an index; None where no file has been indexed yet.

    Raises:
      UserError: it cannot be read.
    """
    try:
        # Whoever has it open sees what others write: a page that is served, while its folder is indexed.
        database = lancedb.connect(path, read_consistency_interval=datetime.timedelta(0))
        return database.open_table(_NAME) if _NAME in database.list_tables().tables else None
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for an index that LanceDB cannot read: its own words, without where in its source they stand."""
    reason = re.sub(r", [^ ]*\.rs:\d+(:\d+)?", "", str(error))
    return UserError(
        f"the index in {path} is damaged or of another LanceDB ({reason}); {index_description.rebuild(path)}"
    )


def make(path: Path, segment: VideoSegment, text_embedding: np.ndarray) -> Any:
    """An empty table for vectors as long as a segment's, or the one that another process has just made.

    LanceDB itself would put ours in the place of the other's.
    """
    with hub.new_folder(path / f"{_NAME}.lance", replace=False) as new:
        lancedb.connect(new.parent).create_table("made", schema=_schema(segment, text_embedding))
        (new.parent / "made.lance").rename(new)
    return open_table(path)


def _schema(segment: VideoSegment, text_embedding: np.ndarray) -> pa.Schema:
    """The columns, with vectors as long as a segment's."""

    def vector(array: np.ndarray) -> pa.DataType:
        return pa.list_(pa.float32(), len(array))

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    return pa.schema(
        {
            "key": pa.string(),
            "number": pa.int32(),
            "file": pa.string(),
            "content": pa.string(),
            "start_time": pa.float64(),
            "end_time": pa.float64(),
            "labels": texts,
            "probabilities": numbers,
            "frame_labels": texts,
            "frame_probabilities": numbers,
            "objects": texts,
            "scores": numbers,
            "words": pa.string(),
            "text": pa.string(),
            "embedding": vector(segment.embedding),
            "frame_embedding": vector(segment.frame_embedding),
            "text_embedding": vector(text_embedding),
            "picture": pa.binary(),
        }
    )


def rows(
    file: str, content: str, segments: Sequence[VideoSegment], text_embeddings: np.ndarray, schema: pa.Schema
) -> pa.Table:
    """A file's rows, as `VideoIndex.replace` takes them."""
    key = key_of(file)
    found = [
        {
            "key": key,
            "number": number,
            "file": file,
            "content": content,
            "start_time": segment.start,
            "end_time": segment.end,
            "labels": [label for label, _ in segment.labels],
            "probabilities": [probability for _, probability in segment.labels],
            "frame_labels": [label for label, _ in segment.frame_labels],
            "frame_probabilities": [probability for _, probability in segment.frame_labels],
            "objects": [label for label, _ in segment.objects],
            "scores": [score for _, score in segment.objects],
            "words": segment.words,
            "text": segment.text,
            "embedding": segment.embedding,
            "frame_embedding": segment.frame_embedding,
            "text_embedding": text_embedding,
            "picture": jpeg(segment.picture),
        }
        for number, (segment, text_embedding) in enumerate(zip(segments, text_embeddings, strict=True))
    ]
    return pa.Table.from_pylist(found, schema=schema)


def jpeg(picture: np.ndarray) -> bytes:
    """A picture uint8 [H, W, 3] as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=_PICTURE_QUALITY)
    return file.getvalue()
