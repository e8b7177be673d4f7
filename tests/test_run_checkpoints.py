"""A run's checkpoints: damaged ones are passed over, and a folder that cannot be written is told in one line."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import counted
from zoo import data, registry, run_log, train
from zoo.errors import UserError
from zoo.run_checkpoints import RunCheckpoints

CONFIG = dataclasses.replace(counted.CONFIG, steps=12)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, "counted", counted.Counted)
    monkeypatch.setitem(registry._ARCHITECTURES, "counting", counted.counting)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A run that is at its end, with checkpoints of steps 4, 8 and 12."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG.to_json())
    train.train(CONFIG, folder)
    return folder


def cut(checkpoint: Path, which: str) -> None:
    """Halves files, as a crash of the machine may."""
    files = [path for path in checkpoint.rglob(which) if path.is_file()]
    assert files
    for path in files:
        os.truncate(path, path.stat().st_size // 2)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    checkpoints = RunCheckpoints(folder / "checkpoints").checkpointer
    assert checkpoints.latest is not None
    assert checkpoints.latest.step == CONFIG.steps
    return {name: np.asarray(leaf) for name, leaf in checkpoints.load(CONFIG.steps).items()}


@pytest.mark.parametrize(
    "which",
    [
        "*",
        "manifest.ocdbt",
        pytest.param("_METADATA", marks=pytest.mark.slow),
        pytest.param("_CHECKPOINT_METADATA", marks=pytest.mark.slow),
    ],
)
def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(which, done):
    whole, told = arrays(done), run_log.read_metrics(done / "metrics.jsonl")
    cut(done / "checkpoints" / "12", which)
    with pytest.warns(UserWarning, match=rf"the checkpoint {done}/checkpoints/12 is damaged"):
        train.train(CONFIG, done)
    again = arrays(done)
    assert again.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    rows = run_log.read_metrics(done / "metrics.jsonl")
    assert [row for row in rows if row["kind"] != "speed"] == [row for row in told if row["kind"] != "speed"]


def test_nothing_is_begun_anew_where_all_checkpoints_are_damaged(done):
    for step in ("4", "8", "12"):
        cut(done / "checkpoints" / step, "*")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(UserError, match=rf"none of the checkpoints in {done}/checkpoints can be read"),
    ):
        train.train(CONFIG, done)


@pytest.mark.parametrize("of", [pytest.param("the run", marks=pytest.mark.slow), "the checkpoints"])
def test_a_folder_that_cannot_be_written_is_told(of, done, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_TEST_SEEN", str(tmp_path))
    place = done if of == "the run" else done / "checkpoints"
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    again = [sys.executable, "-m", "tests.counted", "--resume", str(done)]
    (done / "checkpoints" / "12").rename(done / "before")  # there is something left to do
    done_by = subprocess.run([*unshare, "sh", "-c", script, str(place), *again], capture_output=True, text=True)
    assert done_by.returncode == 2, done_by.stderr
    assert "Read-only file system" in done_by.stderr
    assert str(place) in done_by.stderr
    assert "Traceback" not in done_by.stderr
    assert len([line for line in done_by.stderr.splitlines() if line.startswith("zoo train: ")]) == 1
