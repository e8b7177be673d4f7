"""How fast a run goes: closed forms of the figures, what a run writes of them, its profile; compiling beforehand."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import counted
from zoo import configs, data, registry, run_log, speed, train
from zoo.parallel import Parallel

CONFIG = dataclasses.replace(counted.CONFIG, steps=9, log_every=3)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, "counted", counted.Counted)
    monkeypatch.setitem(registry._ARCHITECTURES, "counting", counted.counting)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, as its only element."""
    now = [1000.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(speed.time, "time", lambda: now[0])
    return now


@pytest.fixture
def compiled(tmp_path: Path) -> Iterator[Path]:
    """A folder for compiled programs, however quickly they were compiled."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path / "compiled"), 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_figures_are_what_the_clock_says(clock, monkeypatch):
    monkeypatch.setitem(speed.PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    meter = speed.Speed(5e10, {})
    for _ in range(4):
        with meter.waiting():
            clock[0] += 0.125
        clock[0] += 0.375
        meter.count({"video": np.zeros((8, 16, 4, 4, 3))})
    told = meter.figures()
    assert told["steps_per_second"] == 2
    assert told["clips_per_second"] == 16
    assert told["frames_per_second"] == 256
    assert told["mfu"] == pytest.approx(2 * 5e10 / 1e12)
    assert told["data_wait"] == 0.25
    assert told["goodput"] == 1
    clock[0] += 6  # an evaluation
    meter.resume()
    clock[0] += 2
    assert meter.figures()["goodput"] == pytest.approx(4 / 10)
    clock[0] += 10  # the run is stopped, and goes on
    again = speed.Speed(0, told)
    clock[0] += 3
    figures = again.figures()
    assert figures["productive_seconds"] == 2 + 3
    assert figures["goodput"] == pytest.approx(5 / 23)
    assert "mfu" not in figures


def test_flops_are_those_of_a_product():
    product = jax.jit(jnp.dot).lower(jnp.zeros((8, 32)), jnp.zeros((32, 16))).compile()
    assert speed.flops_of(product) == 2 * 8 * 32 * 16


def test_a_run_tells_its_speed_and_leaves_a_profile(tmp_path):
    folder = tmp_path / "run"
    train.train(CONFIG, folder, profile=True)
    rows = [row for row in run_log.read_metrics(folder / "metrics.jsonl") if row["kind"] == "speed"]
    assert [row["step"] for row in rows] == [3, 6, 9]
    for row in rows:
        assert row["clips_per_second"] == pytest.approx(CONFIG.batch_size * row["steps_per_second"])
        assert 0 <= row["data_wait"] <= 1
        assert 0 < row["goodput"] <= 1
        assert row["host_memory_peak_bytes"] > 2**20
    assert list(folder.glob("profile/**/*.xplane.pb"))


def test_a_warmed_run_compiles_nothing_more(tmp_path, compiled):
    def programs() -> set[str]:
        steps = ("jit_train_step", "jit_evaluate_step")
        return {path.name for path in compiled.iterdir() if path.name.startswith(steps) and "atime" not in path.name}

    train.warm(CONFIG, Parallel())
    warmed = programs()
    assert len(warmed) == 2
    train.train(CONFIG, tmp_path / "run")
    assert programs() == warmed


def test_an_old_run_goes_on_though_its_config_knows_less():
    text = CONFIG.to_json().replace('  "accumulate": 1,\n', "").replace('  "remat": "none",\n', "")
    assert configs.TrainConfig.from_json(text) == CONFIG
