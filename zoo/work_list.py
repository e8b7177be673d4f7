"""A list of work that many processes share: what each finds stands in a file that is its own.

Items are known by their numbers. Processes never wait for each other, and each sees what all have found: any of them
may be killed and started again, alone or with the others, as many as before or not.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from zoo import output_files
from zoo.errors import UserError

type Row = dict[str, Any]
"""What was found of an item, or only `unreadable`: why nothing was."""


class WorkList:
    """Context in which a process does its part of a list, and notes each item that is done.

    What an earlier run noted stays, but for what could not be read: that is tried again.

    Args:
      folder: of the results, which is made; several processes share it.
      settings: what the rows depend on.
      total: how many items there are.
      place: which process this is, from 0 on, and of how many.

    Attributes:
      missing: numbers of the items that this process has still to do.
      mark: what the files of this process are called apart by; nothing for the first.

    Raises:
      UserError: the folder holds rows of other settings.
      OSError: it cannot be written; so do all methods.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], total: int, place: tuple[int, int]):
        process, count = place
        self.folder, self.mark = folder, f"-{process}" if process else ""
        folder.mkdir(parents=True, exist_ok=True)
        told = folder / "settings.json"
        output_files.write_if_first(told, json.dumps(settings) + "\n")
        if json.loads(told.read_text(encoding="utf-8")) != settings:
            raise UserError(f"{folder} holds the evaluation of something else; choose another folder with --out")
        self._file = folder / f"answers{self.mark}.jsonl"
        kept = {number: row for number, row in _rows(self._file).items() if "unreadable" not in row}
        output_files.write_text(self._file, "".join(map(_line, kept, kept.values())))
        done = {number for number, row in self.rows().items() if "unreadable" not in row}
        self.missing = [number for number in range(process, total, count) if number not in done]

    def __enter__(self) -> Self:
        self._lines = self._file.open("a", encoding="utf-8")
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lines.close()

    def note(self, number: int, row: Row) -> None:
        """Notes that an item is done."""
        self._lines.write(_line(number, row))
        self._lines.flush()

    def rows(self) -> dict[int, Row]:
        """What all processes have noted so far, by the items' numbers and in their order."""
        found: dict[int, Row] = {}
        for path in sorted(self.folder.glob("answers*.jsonl")):
            for number, row in _rows(path).items():
                if "unreadable" in found.get(number, {"unreadable": ""}):
                    found[number] = row
        return dict(sorted(found.items()))


def _line(number: int, row: Row) -> str:
    return json.dumps({"video": number, **row}) + "\n"


def _rows(path: Path) -> dict[int, Row]:
    """The rows of a file by their items' numbers; a line that was cut short is none."""
    if not path.is_file():
        return {}
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row.pop("video"): row for row in rows}
