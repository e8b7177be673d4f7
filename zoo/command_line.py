"""The console's side of every command: `run` turns what happens into an exit code, `parse` reads typed arguments.

Exit codes: 0 done, 2 the user's mistake (one line on stderr), 130 stopped by Ctrl-C, 1 ours (a traceback).
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tyro

from zoo.errors import UserError


def run(program: str, main: Callable[[list[str]], None]) -> NoReturn:
    """Runs `main(arguments)` of a command, `program` as one types it ("zoo predict"), and leaves the process.

    Warnings, which is how the library gives notice, become one line on stderr each.
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _tell(program, f"note: {message}")

    warnings.showwarning = show
    # Orbax logs a failed write once a thread, with tracebacks; the exception, which says the same, still arrives.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        _tell(program, str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _tell(program, "stopped")
        sys.exit(130)
    except BrokenPipeError:  # `zoo list | head -1`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def parse[T](arguments: type[T], argv: Sequence[str], program: str) -> T:
    """An instance of the dataclass `arguments`, whose fields are the flags of `program`, as `argv` says.

    Booleans are plain flags (`--json`). `--help` prints the docstrings and leaves.

    Raises:
      UserError: an unknown flag, a missing argument or a value that is not of its type.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(arguments, args=argv, prog=program, config=_STYLE)
    except SystemExit as leaving:
        if leaving.code == 0:  # --help
            raise
    raise UserError(_unboxed(told.getvalue()))


_STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)


def _unboxed(text: str) -> str:
    """Tyro draws its errors as a box of sections, with ASCII where it must; they become one line.

    The box's title is left out, the first section repeats it.
    """
    rows = [row.strip("│| ") for row in text.splitlines() if row and row[0] not in "╭╰+"]
    words = " ".join(";" if set(row) <= {"─", "-"} else row for row in rows)
    return words.replace(" ;", ";").strip("; ")


def _tell(program: str, message: str) -> None:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
