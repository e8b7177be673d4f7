"""Files that commands write: under a name that is free, whole or not at all, and a refusal told in one line."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo.errors import UserError


def free(path: Path) -> Path:
    """The path, or with a number where that is taken: nobody's file is replaced unasked.

    Raises:
      UserError: the system refuses, such as a name that is too long.
    """
    number, unused = 1, path
    with refusal_told(path):
        while unused.exists():
            number += 1
            unused = path.with_stem(f"{path.stem}-{number}")
    return unused


def check_writable(path: Path) -> None:
    """Before long work is begun.

    Raises:
      UserError: no file can be written there.
    """
    folder = path.absolute().parent
    with refusal_told(path):  # a name may be too long, or be so while it is written
        is_folder = path.is_dir()
        _partial(path).exists()
    if is_folder:
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not yours to write; name another")


def check_outputs(source: str, paths: Sequence[Path]) -> None:
    """Before long work is begun: that each of the files can be written, and over nothing that is needed.

    Raises:
      UserError: one cannot be written, is named twice, or is what `source` names, which is still being read then.
    """
    for index, path in enumerate(paths):
        check_writable(path)
        if path.exists() and os.path.exists(source) and path.samefile(source):  # a source may be an address
            raise UserError(f"{path} would be written over what is read; give it another name")
        if path.absolute() in [other.absolute() for other in paths[:index]]:
            raise UserError(f"{path} is to be written twice; give each file a name of its own")


@contextlib.contextmanager
def refusal_told(path: Path) -> Iterator[None]:
    """What the system refuses within becomes a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path`, with its suffix, that takes its place at the end; nothing stays where that fails.

    Raises:
      UserError: the system refuses.
    """
    partial = _partial(path)
    with refusal_told(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file.

    Raises:
      UserError: the system refuses.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_if_first(path: Path, text: str) -> None:
    """Writes a text file unless one is there: of processes that do so at once, one does, and all then find it whole.

    Raises:
      UserError: the system refuses.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with refusal_told(path):
        try:
            partial.write_text(text, encoding="utf-8")
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)  # which a rename would replace
        finally:
            partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")
