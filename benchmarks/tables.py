"""How results are kept: CSV files with a first line that says what they are, and the choices that follow from them."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TUNED = Path(__file__).parents[1] / "kernels" / "tuned"


def replace(file: Path, text: str) -> None:
    """Puts text in place of what a file held, all of it or nothing."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, file)


def write(file: Path, header: str, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table whose first line is `# header`."""
    text = io.StringIO()
    print(f"# {header}", file=text)
    writer: csv.DictWriter[str] = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(file, text.getvalue())


def read(file: Path, *key: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of a table by what they have in the columns `key`; none where there is no table yet."""
    if not file.exists():
        return {}
    rows = csv.DictReader(file.read_text().splitlines()[1:])
    return {tuple(row[name] for name in key): dict(row) for row in rows}


def choices(platform: str) -> dict[str, Any]:
    """What `zoo.kernels.dispatch` chooses on a platform so far."""
    file = TUNED / f"{platform}.json"
    return json.loads(file.read_text())["choices"] if file.exists() else {}


def write_choices(platform: str, device: str, by: str, chosen: Mapping[str, Any]) -> None:
    """What it is to choose from now on; `device` is what it was measured on, `by` how."""
    text = json.dumps({"device": device, "by": by, "choices": chosen}, indent=1)
    replace(TUNED / f"{platform}.json", text + "\n")


def slug(device: str) -> str:
    """A device's name as files have it: `amd-epyc-7b13`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
