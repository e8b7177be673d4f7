"""The bytes of a video, wherever they are: a file, an http address, memory, a file object that may not seek."""

import contextlib
import http.client
import io
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from typing import BinaryIO

from zoo.errors import UserError

_TIMEOUT = 30  # seconds without an answer


class Source:
    """A seekable file of known name; `close` closes it if it was opened here."""

    def __init__(self, file: BinaryIO, name: str, *, ours: bool):
        self.file, self.name, self._ours = file, name, ours

    def close(self) -> None:
        if self._ours:
            self.file.close()


class View:
    """A place of its own in a shared file, for one reader among several.

    It has no `name`, so that FFmpeg judges a file by its bytes alone and never by a suffix.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._position = file, 0

    def read(self, count: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(count)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._position + offset, io.SEEK_SET
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def open_source(source: str | os.PathLike | bytes | BinaryIO) -> Source:
    """Finds the bytes that `source` stands for: a path, an http or https address, the bytes themselves, a file object.

    Raises:
      UserError: nothing there, or not readable, or empty.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        opened = Source(io.BytesIO(source), f"<{len(source)} bytes>", ours=True)
    elif isinstance(source, str) and "://" in source:
        opened = Source(_download(source), source, ours=True)
    elif isinstance(source, (str, os.PathLike)):
        opened = Source(_open_path(source), os.fspath(source), ours=True)
    elif hasattr(source, "read"):
        name = getattr(source, "name", None)
        opened = Source(source, name if isinstance(name, str) else f"<{type(source).__name__}>", ours=False)
    else:
        raise UserError(
            f"a video is a path, an http address, bytes, a binary file object or a uint8 array [time, height, width, "
            f"3], not {type(source).__name__}"
        )
    return _rewound(opened)


def _rewound(opened: Source) -> Source:
    """The same source, seekable, known to hold bytes and at least one of them."""
    try:
        if not (hasattr(opened.file, "seekable") and opened.file.seekable()):
            with contextlib.ExitStack() as on_error:
                copy = on_error.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(opened.file, copy)
                opened.close()
                opened = Source(copy, opened.name, ours=True)
                on_error.pop_all()
        opened.file.seek(0)
        start = opened.file.read(1)
    except (OSError, ValueError, TypeError) as error:
        # ValueError: a closed file; TypeError: text was copied into a file of bytes
        opened.close()
        raise UserError(f"cannot read {opened.name}: {error}") from error
    if isinstance(start, str):
        raise UserError(f"{opened.name} was opened as text; open it with mode 'rb'")
    if not start:
        opened.close()
        raise UserError(f"{opened.name} is empty: a video has at least one frame")
    return opened


def _open_path(path: str | os.PathLike) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {os.fspath(path)!r}; check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{os.fspath(path)!r} is a directory; name one of the videos in it") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(f"cannot read {os.fspath(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _download(address: str) -> BinaryIO:
    """A temporary file, deleted when closed, of what stands at the address.

    Whole, because a video's index may stand at its end and not every server can start in the middle. Python's own
    client, because it checks certificates; it knows http and https alone, so that no redirection leads to a local file.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise UserError(f"{address}: videos are read from http and https addresses and from paths, not from {scheme}")
    client = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        client.add_handler(handler())
    client.addheaders = [("User-Agent", "jax-video-zoo")]  # some servers refuse Python's own
    try:
        with contextlib.ExitStack() as on_error, client.open(address, timeout=_TIMEOUT) as answer:
            copy = on_error.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(answer, copy)
            expected = answer.headers.get("Content-Length")
            if expected is not None and copy.tell() < int(expected):
                raise OSError(f"the connection broke after {copy.tell()} of {expected} bytes")
            on_error.pop_all()
            return copy
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise UserError(f"cannot read {address}: {status}{reason}; check the address and the network") from error
