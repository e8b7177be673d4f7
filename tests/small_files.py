"""Stands for a full disk: files are let grow to a few bytes only."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Writing past `size` bytes of a file fails within, in this process and in those that it starts.

    No bytecode is written meanwhile: Python 3.12 takes half a write for a whole one, and what was cut short would stay
    in the environment, where nothing that imports it works any more.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        mock.patch.object(sys, "dont_write_bytecode", True),
        mock.patch.dict("os.environ", PYTHONDONTWRITEBYTECODE="1"),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
