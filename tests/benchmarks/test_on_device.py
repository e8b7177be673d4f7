"""Tuning on the device at hand: what is tried, what is refused, and which choices and rules follow from the times."""

from functools import partial

import jax
import pytest

import zoo
from benchmarks import kernels, model_calls, on_device, tables
from benchmarks.model_calls import ModelCall
from zoo.errors import UserError
from zoo.kernels import dispatch

OPTIONS = {"window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0))}


def pool_call(size: int, models=("tiny",)) -> ModelCall:
    x = (jax.ShapeDtypeStruct((2, size, size, 4), "float32"),)
    return ModelCall("max_pool", x, OPTIONS, dispatch.describe(x, OPTIONS), dispatch.kind(x, OPTIONS), models)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for tables and choices, and two calls of models."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "TUNED", tmp_path)
    monkeypatch.setattr(on_device, "model_calls", lambda dtype, batch: [pool_call(8), pool_call(6, ("tiny", "other"))])
    monkeypatch.setattr(on_device, "cpu_name", lambda: "A CPU @ 1 GHz")
    return tmp_path


def test_says_that_there_is_no_gpu(monkeypatch):
    def devices(kind):
        raise RuntimeError(f"Unknown backend {kind}")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(UserError, match="no GPU that JAX can use: Unknown backend gpu"):
        kernels.main(["--tune", "cuda"])


def test_no_call_matches(folder):
    with pytest.raises(UserError, match="no call of a model matches 'nope'; one is named 'tiny max_pool float32 8x8x4"):
        kernels.main(["--tune", "cpu", "--only", "nope"])


def test_measures_what_serves_and_goes_on_where_it_was(folder, monkeypatch):
    monkeypatch.setattr(on_device, "ROUNDS", 2)
    kernels.main(["--tune", "cpu", "--only", "* other *"])
    file = folder / "a-cpu-1-ghz-kernels.csv"
    table = tables.read(file, "operation", "key", "candidate")
    assert {key[1] for key in table} == {pool_call(6).key}
    assert float(table["max_pool", pool_call(6).key, "xla"]["microseconds"]) > 0
    assert table["max_pool", pool_call(6).key, "xla"]["models"] == "tiny other"
    first = file.read_text()
    real, seen = on_device.measured, []
    monkeypatch.setattr(on_device, "measured", lambda call, *rest: seen.append(call.key) or real(call, *rest))
    kernels.main(["--tune", "cpu"])
    assert seen == [pool_call(8).key]
    assert set(first.splitlines()[1:]) <= set(file.read_text().splitlines())
    assert isinstance(tables.choices("cpu"), dict)


def test_a_wrong_implementation_is_not_timed(monkeypatch):
    right = dispatch.implementation

    def wrong(x, **options):
        return right("max_pool", "xla")(x, **OPTIONS) + 1

    monkeypatch.setattr(dispatch, "implementation", lambda o, name: wrong if name == "rewritten" else right(o, name))
    with pytest.raises(ArithmeticError, match=r"tiny max_pool .* by rewritten is off"):
        on_device.measured(pool_call(8), ["xla", "rewritten"], 1)


def test_what_is_refused_has_no_time():
    grouped = OPTIONS | {"window": (3, 3)}
    x = (jax.ShapeDtypeStruct((2, 8, 8, 4), "float32"),)
    cells = on_device.measured(ModelCall("max_pool", x, grouped, "", "", ()), ["xla", "pallas_gpu"], 1)
    assert "microseconds" not in cells["pallas_gpu"]
    assert cells["pallas_gpu"]["notes"]


def test_candidates_are_read_as_they_are_written():
    assert on_device.parsed("xla") == ("xla", {})
    assert on_device.parsed("rewritten form=im2col images=4") == ("rewritten", {"form": "im2col", "images": 4})
    for candidate in on_device.candidates("cpu", pool_call(8)):
        name, blocks = on_device.parsed(candidate)
        assert name in ("xla", "rewritten")
        assert set(blocks) <= {"form", "images"}


A, B = "float32 4x4x8 3x3x8x8", "float32 2x2x8 3x3x8x8"


def rows(a, b=None):
    """Rows of a table for the calls A and B: their times by candidate."""
    return [
        {"operation": "conv", "kind": "3x3 strides=1,1", "key": key, "candidate": name, "microseconds": str(time)}
        for key, times in ((A, a), (B, b or {}))
        for name, time in times.items()
    ]


def test_a_kind_takes_what_is_best_for_all_its_calls():
    chosen = on_device.choices(
        rows({"xla": 10, "rewritten": 4, "rewritten form=b": 5}, {"xla": 10, "rewritten": 9, "rewritten form=b": 5})
    )
    rule = {
        "implementation": "rewritten",
        "blocks": {"form": "b"},
        "from_work": 1000 * 4 * 2 * 3 * 3 * 8 * 8 // 10,
    }  # both take 10
    assert chosen["conv of 3x3 strides=1,1"] == chosen["conv of 2 axes"] == rule
    assert chosen[f"conv {A}"] == {"implementation": "rewritten"}
    assert f"conv {B}" not in chosen  # the rule serves it


def test_lax_stays_where_others_win_by_chance_or_are_refused():
    chosen = on_device.choices(rows({"xla": 10, "rewritten": 9.9}, {"xla": 10, "rewritten": ""}))
    assert {name for name in chosen if name not in on_device.ALWAYS} == {"conv of 3x3 strides=1,1"}
    assert chosen["conv of 3x3 strides=1,1"] == {"implementation": "xla"}
    chosen = on_device.choices(rows({"xla": 10, "rewritten": 1}, {"xla": 1, "rewritten": 2}))
    assert chosen[f"conv {B}"] == {"implementation": "xla"}


def test_calls_are_named_as_dispatch_looks_them_up(monkeypatch):
    """The table would otherwise be one that no call is found in."""
    looked_up = set()

    class Table(dict):
        def __contains__(self, name):
            looked_up.add(name)
            return False

    monkeypatch.setattr(model_calls, "CONV_LSTM", ())
    monkeypatch.setattr(model_calls, "INPUTS", {"cnn_2d": (partial(zoo.create, "cnn_2d"), ((224, 224, 3),))})
    monkeypatch.setattr(dispatch, "_tuned", lambda platform: Table())
    calls = model_calls.model_calls("float32", 2)
    assert {call.operation for call in calls} >= {"conv", "conv_weight_gradient", "max_pool_gradient"}
    names = {f"{call.operation} {call.key}" for call in calls}
    of_pictures = {name for name in looked_up if name.startswith("conv_input_gradient float32 224x224x3 ")}
    assert names == {name for name in looked_up - of_pictures if " of " not in name}
    assert {f"{call.operation} of {call.kind}" for call in calls} <= looked_up
