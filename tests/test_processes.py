"""Real processes that train together, and what happens to them: killed, stopped, hanging, other than the rest."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests import counted
from zoo import run_log
from zoo.data import loader
from zoo.run_checkpoints import RunCheckpoints

LOST_AFTER = 20  # seconds: a busy machine may let a process wait for many of them


def begin(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(dataclasses.replace(counted.CONFIG, **changes).to_json())
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def processes(
    folder: Path, count: int, *flags: str, each: dict[int, list[str]] | None = None, **environment: str
) -> Iterator[list[subprocess.Popen]]:
    """Begins or goes on with a run in so many processes; those that still run at the end are killed."""
    port = free_port()
    told = os.environ | {"ZOO_TEST_SEEN": str(folder), "JAX_PLATFORMS": "cpu", "ZOO_COMPILATION_CACHE": "off"}
    told |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"} | environment
    many = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count), "--process-timeout", str(LOST_AFTER)]
    begun = []
    for process in range(count):
        command = [sys.executable, "-m", "tests.counted", "--resume", str(folder), *flags]
        command += [*many, "--process-id", str(process)] if count > 1 else []
        command += (each or {}).get(process, [])
        begun.append(subprocess.Popen(command, env=told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    try:
        yield begun
    finally:
        for process in begun:
            if process.poll() is None:
                process.kill()
            process.communicate()


def ended(begun: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """Exit codes, and what each process told."""
    told = [process.communicate(timeout=300)[1] for process in begun]
    return [process.returncode for process in begun], told


def run(folder: Path, count: int, *flags: str, **environment: str) -> list[str]:
    with processes(folder, count, *flags, **environment) as begun:
        codes, told = ended(begun)
    assert codes == [0] * count, told
    return told


def wait_for_step(folder: Path, step: int, begun: list[subprocess.Popen]) -> None:
    while not any(row["step"] >= step for row in run_log.read_metrics(folder / "metrics.jsonl")):
        assert all(process.poll() is None for process in begun), ended(begun)
        time.sleep(0.05)


def figures(folder: Path) -> list[dict[str, Any]]:
    return [row for row in run_log.read_metrics(folder / "metrics.jsonl") if row["kind"] != "speed"]


def state(folder: Path) -> dict[str, np.ndarray]:
    checkpoints = RunCheckpoints(folder / "checkpoints").checkpointer
    assert checkpoints.latest is not None
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    stored: Any = checkpoints.metadata(checkpoints.latest.step).metadata
    wanted = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one) for name, leaf in stored.items()}
    return {name: np.asarray(leaf) for name, leaf in checkpoints.load(checkpoints.latest.step, wanted).items()}


def assert_alike(folder: Path, other: Path, tolerance: float) -> None:
    """The same figures at every step, and the same state at the end."""
    ours, theirs = figures(folder), figures(other)
    assert [(row["step"], row["kind"]) for row in ours] == [(row["step"], row["kind"]) for row in theirs]
    for row, like in zip(ours, theirs, strict=True):
        for name in ("loss", "top1"):
            assert row[name] == pytest.approx(like[name], rel=tolerance, abs=tolerance), row
    ours, theirs = state(folder), state(other)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_each_once(folder: Path, steps: int = counted.CONFIG.steps) -> None:
    """Along the history that survived, every example was seen exactly once an epoch."""
    found = counted.epochs(folder)
    assert len(counted.seen(folder)) == steps
    assert len(found) == steps * counted.CONFIG.batch_size // counted.ITEMS
    for epoch in found:
        assert sorted(epoch) == list(range(counted.ITEMS))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run that nothing happens to, in so many processes; made when first asked for."""
    place = tmp_path_factory.mktemp("undisturbed")

    class Runs(dict[int, Path]):
        def __missing__(self, count: int) -> Path:
            folder = begin(place / str(count))
            run(folder, count)
            self[count] = folder
            return folder

    return Runs()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_rows_of_all_processes_are_those_of_one(count):
    source, size = counted.Counted("train"), 16
    alone = loader.training_batches(source, size, seed=1)
    shares = [loader.training_batches(source, size, seed=1, share=(process, count)) for process in range(count)]
    order = []
    for _ in range(5):
        rows = [next(batches)["index"] for batches in shares]
        np.testing.assert_array_equal(np.concatenate(rows), next(alone)["index"])
        order += np.concatenate(rows).tolist()
    assert sorted(order[:40]) == sorted(order[40:80]) == list(range(40))
    position = shares[-1].get_state()
    assert position == alone.get_state()
    again = loader.training_batches(source, size, seed=1)
    again.set_state(position)
    np.testing.assert_array_equal(next(again)["index"], next(alone)["index"])
    for batches in [alone, again, *shares]:
        batches.close()


@pytest.mark.parametrize("count", [1, 2])
def test_held_out_items_come_once(count):
    source = counted.Counted("test")
    shares = [list(loader.evaluation_batches(source, 16, 20, (process, count))) for process in range(count)]
    found = [
        row
        for share in shares
        for batch in share
        for row, weight in zip(batch["index"].tolist(), batch["weight"].tolist(), strict=True)
        if weight
    ]
    assert sorted(found) == list(range(20))
    assert {len(share) for share in shares} == {2}


def test_two_processes_train_as_one(tmp_path, undisturbed):
    assert_alike(undisturbed[2], undisturbed[1], 1e-5)
    assert_each_once(undisturbed[2])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
def test_two_processes_train_as_one_however_the_step_is_split(strategy, tmp_path, undisturbed):
    folder = begin(tmp_path / "run")
    told = run(folder, 2, "--parallel", strategy)
    assert told[1] == "", "the first process speaks for all"
    assert "run folder" in told[0]
    assert_alike(folder, undisturbed[1], 1e-5)


@pytest.mark.slow
def test_one_of_four_is_killed_and_the_run_goes_on_to_the_same_end(tmp_path, undisturbed):
    folder = begin(tmp_path / "run")
    with processes(folder, 4, ZOO_TEST_PAUSE="0.2") as begun:
        wait_for_step(folder, 10, begun)
        begun[2].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        codes, told = ended(begun)
    assert time.monotonic() - killed < 3 * LOST_AFTER
    assert codes == [1, 1, -signal.SIGKILL, 1]
    for process in (0, 1, 3):
        assert f"process 2 of 4 ({socket.gethostname()}, process id {begun[2].pid}, at step" in told[process]
        assert f"has given no sign of life for {LOST_AFTER} s" in told[process]
        assert "Traceback" not in told[process]
    run(folder, 4, ZOO_TEST_RUN="1")
    assert_alike(folder, undisturbed[4], 0)
    assert_alike(folder, undisturbed[1], 1e-5)
    assert_each_once(folder)


@pytest.mark.slow
def test_the_first_process_is_killed_and_the_others_end(tmp_path):
    folder = begin(tmp_path / "run")
    with processes(folder, 2, ZOO_TEST_PAUSE="0.2") as begun:
        wait_for_step(folder, 5, begun)
        begun[0].send_signal(signal.SIGKILL)
        codes, told = ended(begun)
    assert codes == [-signal.SIGKILL, 1]
    assert f"process 0 of 2 ({socket.gethostname()}, process id {begun[0].pid}, at step" in told[1]
    assert "the coordinator, is gone; process 1 stops; the same command goes on from the last checkpoint\n" in told[1]
    assert len(told[1].splitlines()) == 1, "in one line, and none of JAX's"


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "whom", "then"), [(["--fsdp", "2"], slice(None), 1), ([], slice(1, None), 4)])
def test_terminated_all_save_at_one_step_and_another_number_goes_on(flags, whom, then, tmp_path, undisturbed):
    folder = begin(tmp_path / "run", checkpoint_every=1000)
    with processes(folder, 2, *flags, ZOO_TEST_PAUSE="0.2") as begun:
        wait_for_step(folder, 6, begun)
        for process in begun[whom]:
            process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        codes, told = ended(begun)
    assert codes == [128 + signal.SIGTERM] * 2, told
    assert time.monotonic() - sent < LOST_AFTER
    assert "all saved; go on with" in told[0]
    stopped = figures(folder)[-1]["step"]
    latest = RunCheckpoints(folder / "checkpoints").checkpointer.latest
    assert latest is not None
    assert latest.step == stopped < counted.CONFIG.steps
    run(folder, then, ZOO_TEST_RUN="1")
    assert_alike(folder, undisturbed[1], 1e-5)
    assert_each_once(folder)


@pytest.mark.slow
def test_two_processes_pass_over_a_truncated_checkpoint(tmp_path, undisturbed):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed[2], folder)
    for path in (folder / "checkpoints" / str(counted.CONFIG.steps)).rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    for told in run(folder, 2, ZOO_TEST_RUN="1"):
        assert f"{folder}/checkpoints/{counted.CONFIG.steps} is damaged" in told
    assert_alike(folder, undisturbed[2], 0)
    assert_each_once(folder)


@pytest.mark.slow
def test_a_process_that_hangs_is_named_and_the_others_stop(tmp_path):
    folder = begin(tmp_path / "run")
    with processes(folder, 2, ZOO_TEST_HANG="1:7") as begun:
        wait_for_step(folder, 5, begun)
        began = time.monotonic()
        told = begun[0].communicate(timeout=6 * LOST_AFTER)[1]
        assert begun[0].returncode == 1
        assert time.monotonic() - began < 3 * LOST_AFTER
    assert "process 1 of 2" in told
    assert f"at step 6) has stood still for {LOST_AFTER} s; process 0 stops" in told


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--seed", "--parallel"])
def test_processes_that_differ_are_refused(flag, tmp_path):
    folder = tmp_path / "run"
    value = {"--seed": "1", "--parallel": "pmap"}[flag]
    given = ["--folder", str(folder), "--model", "lstm", "--steps", "2"]
    given += ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "zoo.train", *given, "--process-id", str(process), *[flag, value][: 2 * process]],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    codes, told = ended(begun)
    assert codes == [2, 2], told
    wanted = {"--seed": "process 1 has seed 1, process 0 has 0", "--parallel": "strategy pmap, process 0 has jit"}[flag]
    for line in told:
        assert wanted in line
        assert "Traceback" not in line
    assert not folder.exists()


def test_a_coordinator_that_does_not_answer_is_told(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "zoo.train", "--model", "lstm", "--folder", str(tmp_path / "run")]
    command += ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", "1"]
    done = subprocess.run([*command, "--process-timeout", "1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"the coordinator 127.0.0.1:{port} did not answer within 1 s: Connection refused" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_killed_it_restarts_itself(tmp_path, undisturbed):
    folder = begin(tmp_path / "run")
    with processes(folder, 1, "--max-restarts", "2", ZOO_TEST_PAUSE="0.2") as (parent,):
        wait_for_step(folder, 6, [parent])
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        codes, told = ended([parent])
    assert codes == [0], told
    assert "ended by SIGKILL; restart 1 of 2" in told[0]
    assert json.dumps(figures(folder)) == json.dumps(figures(undisturbed[1]))
    assert_alike(folder, undisturbed[1], 0)
