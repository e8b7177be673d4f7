"""What an index of videos was made with: a file beside its table, which only the same makes go on."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import output_files, registry
from zoo.errors import UserError

FORMAT = 1  # of the rows; another number is another layout
_FILE = "index.json"


type Description = dict[str, Any]
"""Of an index its "format", the "folder" that it is of, and its "models": role to name and digest of the weights."""


def describe(folder: Path, models: Mapping[str, str]) -> Description:
    """What an index made here is made with.

    Args:
      models: names of published models by what each is asked for.
    """
    found = {}
    for role, name in models.items():
        files = json.dumps(sorted(registry.card(name).source.files.items()))
        found[role] = [name, hashlib.sha256(files.encode()).hexdigest()[:12]]
    return {"format": FORMAT, "folder": str(folder), "models": found}


def read(path: Path) -> Description | None:
    """What the index in a folder was made with; None where there is none.

    Raises:
      UserError: it cannot be read, is damaged, or is of another version.
    """
    try:
        text = (path / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name the folder of an index with --db") from error
    try:
        found = json.loads(text)
        version, *_ = found["format"], Path(found["folder"]), {role: (n, d) for role, (n, d) in found["models"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path / _FILE} is damaged; {rebuild(path)}") from error
    if version != FORMAT:
        raise UserError(f"the index in {path} is of version {version}, and {FORMAT} is read here; {rebuild(path)}")
    return found


def command(path: Path, folder: str = "FOLDER") -> str:
    """What one types to index a folder."""
    return f"zoo search index {folder} --db {shlex.quote(str(path))}"


def rebuild(path: Path, folder: str = "FOLDER") -> str:
    """What one types where an index cannot be used."""
    return f"delete it and build it anew: rm -r {shlex.quote(str(path))}; {command(path, folder)}"


def check_same(path: Path, there: Description, wanted: Description) -> None:
    """Before anything is added to an index.

    Raises:
      UserError: it is of another folder, or was made with another model.
    """
    if there["folder"] != wanted["folder"]:
        raise UserError(
            f"the index in {path} is of {there['folder']}, not of {wanted['folder']}; name another folder with --db"
        )
    for role, (name, digest) in wanted["models"].items():
        before, weights = there["models"].get(role, ("no such model", ""))
        if (before, weights) != (name, digest):
            other = f"other weights of {name}" if before == name else f"{before}, not with {name}"
            way_out = f"{rebuild(path, shlex.quote(there['folder']))}, or name another folder with --db"
            raise UserError(f"the index in {path} was made with {other}, whose vectors cannot be compared; {way_out}")


def make(path: Path, description: Description) -> None:
    """Writes what the index is of, unless another process just did."""
    with output_files.refusal_told(path):
        path.mkdir(parents=True, exist_ok=True)
        there = [name for name in os.listdir(path) if not name.startswith(f".{_FILE}")]
        if there and _FILE not in there:
            raise UserError(f"{path} holds something else than an index; name an empty or a new folder with --db")
    output_files.write_if_first(path / _FILE, json.dumps(description, indent=1) + "\n")
