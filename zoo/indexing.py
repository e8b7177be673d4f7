"""The work of an index: which videos a folder holds, which of them are new, and each one taken apart once.

A file is the unit of work. It is known by its path and the SHA-256 of its bytes, so the same call goes on where a
process was stopped, and does nothing where nothing has changed.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo import download
from zoo.data.labelled_videos import SUFFIXES
from zoo.errors import UserError
from zoo.video_index import VideoIndex

_AT_ONCE = 2  # files: one is decoded while the networks see another


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `count` parts of the work, `number` from 0 on; a file's name says which is its."""

    number: int = 0
    count: int = 1

    def has(self, file: str) -> bool:
        return int(hashlib.sha256(os.fsencode(file)).hexdigest(), 16) % self.count == self.number


@dataclasses.dataclass
class Outcome:
    """What became of a shard's files.

    Attributes:
      indexed, unchanged, removed: paths below the folder.
      segments: rows that were written.
      unreadable: why, by the path of a file or of a folder.
    """

    indexed: list[str] = dataclasses.field(default_factory=list)
    unchanged: list[str] = dataclasses.field(default_factory=list)
    removed: list[str] = dataclasses.field(default_factory=list)
    segments: int = 0
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def videos_below(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The videos in a folder and the folders in it, by their names' endings, and what cannot be read, with the reason.

    Links are followed, but each folder and each file is taken once, under the first of its names. Those whose names
    begin with a dot are left out.

    Returns:
      Paths below the folder with "/" between names, sorted.
    """
    files: dict[str, str] = {}  # by what they really are
    refused: dict[str, str] = {}
    seen = set()

    def note(error: OSError) -> None:
        refused[os.path.relpath(error.filename, folder)] = error.strerror or str(error)

    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()  # a link back, or a second way to the same
            continue
        seen.add(real)
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                path = os.path.join(place, name)
                file = Path(os.path.relpath(path, folder)).as_posix()
                if not _is_text(file):
                    refused[file] = "its name is not UTF-8; rename it"
                else:
                    files.setdefault(os.path.realpath(path), file)
    return sorted(files.values()), refused


def list_videos(folder: Path, db: Path) -> tuple[list[str], dict[str, str]]:
    """`videos_below`, at least one.

    Raises:
      UserError: the folder holds no video; the index in `db` is not to be emptied, nor to be made of such a folder.
    """
    found, refused = videos_below(folder)
    if not found:
        raise UserError(f"{folder} holds no video{_first_of(refused)}; nothing was changed in {db}")
    return found, refused


def update(
    index: VideoIndex,
    analyse: Callable[[Path, Callable[[float], None]], Any],
    embed: Callable[[Sequence[str]], Any],
    shard: Shard,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Brings a shard of an index up to date with its folder.

    Args:
      analyse: makes a `zoo.video_analysis.VideoAnalysis` of a video, and calls what it is given now and then; it is
        called from two threads.
      embed: vectors float32 [texts, features] of texts.
      progress: told how many files are done, and of how many.

    Raises:
      UserError: the folder holds no video, or the index cannot be written.
    """
    found, refused = list_videos(index.folder, index.path)
    outcome = Outcome(unreadable={path: reason for path, reason in refused.items() if shard.has(path)})
    known = {file: content for file, content in index.files().items() if shard.has(file)}
    ours = [file for file in found if shard.has(file)]
    gone = [file for file in sorted(known.keys() - set(found)) if not _lies_below(file, refused)]
    index.remove(gone)
    outcome.removed += gone

    stopped = threading.Event()

    def go_on(_: float) -> None:
        if stopped.is_set():
            raise UserError("stopped")

    def look_at(file: str) -> tuple[str, Any]:
        """The file's SHA-256, and what is in it unless that is known."""
        path = index.folder / file
        before = _stamp(path)
        content = download.sha256_of(path)
        analysis = None if known.get(file) == content else analyse(path, go_on)
        if _stamp(path) != before:
            raise UserError("it was changed while it was read; index again")
        return content, analysis

    progress(0, len(ours))
    for done, (file, result) in enumerate(_in_parallel(look_at, ours, stopped), 1):
        _take(index, file, result, embed, outcome, is_known=file in known)
        progress(done, len(ours))
    return outcome


def _take(
    index: VideoIndex,
    file: str,
    result: Any,
    embed: Callable[[Sequence[str]], Any],
    outcome: Outcome,
    *,
    is_known: bool,
) -> None:
    """Writes down what was found in a file, or why nothing was."""
    if isinstance(result, str):
        outcome.unreadable[file] = result
        if is_known:  # what is there now is not what was indexed
            index.remove([file])
        return
    content, analysis = result
    if analysis is None:
        outcome.unchanged.append(file)
        return
    index.replace(file, content, analysis.segments, embed([segment.text for segment in analysis.segments]))
    outcome.indexed.append(file)
    outcome.segments += len(analysis.segments)


def _in_parallel(
    call: Callable[[str], Any], files: Sequence[str], stopped: threading.Event
) -> Iterator[tuple[str, Any]]:
    """Yields (file, what the call gives of it or why it cannot) in order, a few ahead; says so when it is stopped."""

    def attempt(file: str) -> Any:
        try:
            return call(file)
        except UserError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as workers:
        try:
            coming = deque(workers.submit(attempt, file) for file in files[:_AT_ONCE])
            for place, file in enumerate(files):
                result = coming.popleft().result()
                if place + _AT_ONCE < len(files):
                    coming.append(workers.submit(attempt, files[place + _AT_ONCE]))
                yield file, result
        finally:
            stopped.set()  # Ctrl-C must not wait for the end of a long film


def _stamp(path: Path) -> tuple[int, int]:
    """A file's size and time.

    Raises:
      UserError: it is none.
    """
    told = path.stat()
    if not stat.S_ISREG(told.st_mode):  # whoever opened a pipe might wait for ever
        raise UserError("it is a pipe, a socket or a device, and no file")
    return told.st_size, told.st_mtime_ns


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lies_below(file: str, refused: Mapping[str, str]) -> bool:
    """A file in a folder that cannot be read is not gone."""
    return any(place == "." or file == place or file.startswith(f"{place}/") for place in refused)


def _first_of(refused: Mapping[str, str]) -> str:
    return next((f" that can be read ({place}: {reason})" for place, reason in refused.items()), "")
