"""The table of the long-tailed experiment: means over seeds of finished runs, and of no others."""

import dataclasses
import json

import pytest

from benchmarks import long_tail
from zoo import configs
from zoo.errors import UserError


def test_the_table_has_the_finished_runs_of_each_preset(tmp_path, capsys):
    def run(name: str, config: configs.TrainConfig, *rows: tuple[int, float]) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config.to_json())
        told = [
            {"step": step, "kind": "test", "top1": tail + 0.5, "top1_head": 1, "top1_middle": 0.5, "top1_tail": tail}
            for step, tail in rows
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))

    plain, balanced = (configs.experiment("long_tail", preset) for preset in ("default", "balanced"))
    run("a", plain, (200, 0.9), (400, 0.1))
    run("b", dataclasses.replace(plain, seed=1), (200, 0.9), (400, 0.2))
    run("c", balanced, (400, 0.25))
    run("stopped", dataclasses.replace(balanced, seed=1), (200, 0.9))
    run("other", dataclasses.replace(plain, learning_rate=1.0), (400, 0.9))
    long_tail.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| `default` | 100.0 (100.0-100.0) | 50.0 (50.0-50.0) | 15.0 (10.0-20.0) | 65.0 (60.0-70.0) | 2 |",
        "| `balanced` | 100.0 (100.0-100.0) | 50.0 (50.0-50.0) | 25.0 (25.0-25.0) | 75.0 (75.0-75.0) | 1 |",
    ]
    with pytest.raises(UserError, match="holds no finished run of long_tail"):
        long_tail.main([str(tmp_path / "stopped")])
