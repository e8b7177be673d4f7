"""Lists of work that processes share, with processes that are killed: nothing is lost, nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import tiny
from tests.clips import write_clip
from zoo import evaluate, processes
from zoo.errors import UserError
from zoo.process_flags import ALONE, ProcessFlags
from zoo.work_list import WorkList

VIDEOS = 12


def numbers(file: Path) -> list[int]:
    return [json.loads(line)["video"] for line in file.read_text().splitlines()]


def test_parts_cover_the_list_and_what_was_cut_short_is_done_again(tmp_path):
    for process in range(3):
        with WorkList(tmp_path, {"of": "it"}, 10, (process, 3)) as work:
            assert work.missing == list(range(process, 10, 3))
            for number in work.missing:
                work.note(number, {"top": [number]} if number != 4 else {"unreadable": "no frames"})
    assert {number: row.get("top") for number, row in work.rows().items()} == {
        number: [number] if number != 4 else None for number in range(10)
    }
    lines = (tmp_path / "answers-2.jsonl").read_text()
    (tmp_path / "answers-2.jsonl").write_text(lines[:-5])  # as kill -9 leaves it: 8 is cut
    assert WorkList(tmp_path, {"of": "it"}, 10, (0, 1)).missing == [4, 8], "one process goes on where three were"
    assert WorkList(tmp_path, {"of": "it"}, 10, (1, 3)).missing == [4]
    assert numbers(tmp_path / "answers-1.jsonl") == [1, 7]
    with pytest.raises(UserError, match="holds the evaluation of something else"):
        WorkList(tmp_path, {"of": "more"}, 10, (0, 1))


SLURM = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "7", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
STEP = {"SLURM_STEP_NODELIST": "node[001-004]"}
OPEN_MPI = {f"OMPI_COMM_WORLD_{name}": number for name, number in (("SIZE", "7"), ("RANK", "2"), ("LOCAL_RANK", "0"))}


@pytest.mark.parametrize(
    ("flags", "environment", "place", "gpus"),
    [
        (ALONE, {}, (0, 1), {}),
        (ProcessFlags("10.0.0.1:8476", 4, 3), {}, (3, 4), {}),
        (ProcessFlags(None, 4, 0), SLURM | STEP, (0, 4), {}),
        (ALONE, SLURM | STEP, (5, 7), {"jax_cuda_visible_devices": "1"}),
        (ALONE, SLURM, (0, 1), {}),
        (
            ALONE,
            OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.1:4321"},
            (2, 7),
            {"jax_cuda_visible_devices": "0"},
        ),
    ],
)
def test_a_process_knows_its_place(flags, environment, place, gpus, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    changed: dict[str, str] = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    assert processes.place(flags) == place
    assert changed == gpus


@pytest.fixture
def videos(tmp_path, cards, monkeypatch) -> Path:
    """Clips of noise, of which one cannot be read, and a model for them."""
    monkeypatch.chdir(tmp_path)
    tiny.publish_checkpoint(cards)
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        path = tmp_path / "clips" / tiny.LABELS[number % 3] / f"{number}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, rng.integers(0, 256, (6, 12, 20, 3), np.uint8), fps=10, codec="ffv1")
    path.write_bytes(b"no video")
    return tmp_path / "clips"


def start(cards: Path, process: int, seconds: float) -> subprocess.Popen:
    root = str(Path(__file__).parent.parent)
    told = {"ZOO_TEST_CARDS": str(cards), "ZOO_TEST_SECONDS": str(seconds), "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, "-m", "tests.tiny", "--model", "tiny_colours", "--dataset", "folder:clips"]
    command += ["--split", "all", "--clips", "2", "--out", "shared"]
    command += ["--num-processes", "2", "--process-id", str(process)]
    return subprocess.Popen(command, env=os.environ | told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_one_of_two_is_killed_and_the_figures_are_those_of_one(videos, cards, tmp_path):
    both = [start(cards, process, seconds=0.5) for process in range(2)]
    hers = tmp_path / "shared" / "answers-1.jsonl"
    while not hers.exists() or len(numbers(hers)) < 2:
        assert both[1].poll() is None, both[1].communicate()
        time.sleep(0.02)
    both[1].send_signal(signal.SIGKILL)
    both[1].wait()
    kept = numbers(hers)
    assert 2 <= len(kept) < VIDEOS / 2
    with hers.open("a") as lines:
        lines.write('{"video": 11, "to')  # what was being written
    out, told = both[0].communicate(timeout=300)
    assert both[0].returncode == 0, told
    missing = VIDEOS // 2 - len(kept)
    assert f"process 0 of 2 has done its part; {missing} of {VIDEOS} videos are left to others" in told
    assert out == ""
    assert not (tmp_path / "shared" / "results.json").exists()

    again = start(cards, 1, seconds=0)
    out, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert "top1" in out
    ours = numbers(tmp_path / "shared" / "answers.jsonl")
    assert sorted([*ours, *numbers(hers)]) == list(range(VIDEOS)), "each once"
    assert numbers(hers)[: len(kept)] == kept, "what was done is not done again"

    evaluate.main(
        ["--model", "tiny_colours", "--dataset", "folder:clips", "--split", "all", "--clips", "2", "--out", "alone"]
    )
    alone, shared = (json.loads((tmp_path / out / "results.json").read_text()) for out in ("alone", "shared"))
    assert shared == alone
    assert (alone["videos"], alone["unreadable"]) == (VIDEOS - 1, 1)
