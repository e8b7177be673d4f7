"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Something the user can put right: its message is one line that names the value and the way out.

    Commands print the message and leave with exit code 2; in Python it is an ordinary ValueError.
    """
