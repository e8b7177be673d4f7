"""The table of ways from video files to clips, on a few small ones: not how fast they are, but that it is told."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import input_pipeline, tables
from tests.clips import write_clip
from zoo.errors import UserError


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two clips, two seconds each."""
    folder = tmp_path_factory.mktemp("films")
    frames = np.random.default_rng(0).integers(0, 256, (50, 144, 176, 3), dtype=np.uint8)
    for name in ("left", "right"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(2):
            write_clip(folder / "train" / name / f"{number}.mp4", frames[::-1] if number else frames)
    return folder


def test_ours_and_plain_pyav_are_told_side_by_side(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(input_pipeline, "cpu_name", lambda: "A CPU @ 1 GHz")
    input_pipeline.main(["--data", str(films), "--rounds", "2", "--seconds", "0.1", "--workers", "0"])
    file = tmp_path / "a-cpu-1-ghz-input-pipeline.csv"
    rows = tables.read(file, "pipeline")
    assert set(rows) == {("ours, 0 workers",), (input_pipeline.PLAIN,)}
    assert all(float(row["clips a second"]) > 0 for row in rows.values())
    assert float(rows[input_pipeline.PLAIN,]["of plain PyAV"]) == 1
    assert file.read_text().startswith("# 4 videos, turns of 0.1 s, on A CPU @ 1 GHz")


def test_endurance_tells_the_memory_at_each_tenth(films: Path, capsys: pytest.CaptureFixture[str]):
    input_pipeline.main(["--data", str(films), "--endurance", "160"])
    told = re.findall(r"^(\d+) clips: (\d+) MB$", capsys.readouterr().out, re.MULTILINE)
    assert [int(clips) for clips, _ in told] == list(range(16, 161, 16))
    assert all(50 < int(megabytes) < 10_000 for _, megabytes in told)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--workers", "2", "-1"], "--workers -1: a number of processes is 0 or more"),
        (["--rounds", "1"], "--rounds 1 has no spread; give at least 2"),
        (["--peer-python", "/no/python"], "/no/python cannot be run: No such file"),
        (["--peer-python", "/bin/true"], "/bin/true: .*; it has to be a Python with"),
    ],
)
def test_what_cannot_be_timed_is_told_in_one_line(flags: list[str], told: str, films: Path):
    with pytest.raises(UserError, match=told) as raised:
        input_pipeline.main(["--data", str(films), "--workers", "0", *flags])
    assert "\n" not in str(raised.value)
