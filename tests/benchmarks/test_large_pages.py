"""The benchmark of large pages: which process has them, and what the table says of the two."""

import os
from typing import Any

import pytest

from benchmarks import large_pages, tables
from zoo.errors import UserError
from zoo.huge_pages import LARGE, SETTING


class TimedPeer:
    """A process that takes 3 ms with large pages, and 4 without."""

    def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str]):
        self.milliseconds = {LARGE: 3.0, "": 4.0}[(os.environ | environment)[SETTING]]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        return {"milliseconds": [self.milliseconds]}

    def close(self) -> None:
        pass


def test_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(large_pages, "Peer", TimedPeer)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(large_pages, "cpu_name", lambda: "A CPU")
    large_pages.main(["--model", "i3d", "--rounds", "3"])
    large_pages.main(["--model", "r3d_18,i3d", "--passes", "inference", "--rounds", "2"])
    rows = tables.read(tmp_path / "a-cpu-large-pages.csv", "model", "pass")
    assert list(rows) == [("i3d", "inference"), ("i3d", "training step"), ("r3d_18", "inference")]
    cells = {
        "small pages ms": "4.0",
        "large pages ms": "3.0",
        "ratio": "0.750",
        "spread": "0.000",
        "rounds": "2",
        "seconds a turn": "15",
    }
    assert rows["i3d", "inference"] == {"model": "i3d", "pass": "inference", **cells}


def test_a_mistake_is_told():
    with pytest.raises(UserError, match="no pass is called 'train'; did you mean training step"):
        large_pages.main(["--passes", "train"])
