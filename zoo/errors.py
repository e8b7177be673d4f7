"""The one exception that stands for a user's mistake, and what the operating system says of its own."""

import os
import re


class UserError(ValueError):
    """Something the user can put right: its message is one line that names the value and the way out.

    Commands print the message and leave with exit code 2; in Python it is an ordinary ValueError.
    """


def refused_by_system(error: Exception) -> str | None:
    """Why the operating system refused, if that is what the error says: tensorstore and Lance tell it in words."""
    if isinstance(error, OSError):
        return error.strerror
    code = re.search(r"os(?:_error_code='| error )(\d+)", str(error))
    return os.strerror(int(code[1])) if code else None
