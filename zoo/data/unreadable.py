"""Videos that cannot be read: a few are passed over, many are a mistake, and all of them are named."""

import dataclasses
from pathlib import Path

from zoo.errors import UserError

_MOST = 0.01  # share of the videos; with more something else is wrong


@dataclasses.dataclass
class Unreadable:
    """Which of `total` videos cannot be read and why; two at least make too many.

    Attributes:
      messages: by the video's number, of those that this process met.
    """

    total: int
    messages: dict[int, str] = dataclasses.field(default_factory=dict)
    _file: Path | None = None

    def write_to(self, file: Path) -> None:
        """Names what is met from now on in a file, a line each, which worker processes share. An old one is removed."""
        file.unlink(missing_ok=True)
        self._file = file

    def add(self, number: int, message: str) -> None:
        """Notes a video.

        Raises:
          UserError: it is one too many: more than 1%, of all processes together.
        """
        self.messages[number] = message
        lines = dict.fromkeys(self.messages.values())
        if self._file is not None:
            noted = self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else []
            if message not in noted:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(f"{message}\n")
            lines |= dict.fromkeys(noted)
        if len(lines) > max(1, _MOST * self.total):
            where = f"{self._file} names them" if self._file else "; ".join(lines)
            raise UserError(f"{len(lines)} of {self.total} videos cannot be read, more than 1%: {where}")
