"""The table of whole models against PyTorch, with processes that only pretend; and our own side of it."""

import ast
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import model_pairs, model_peers, models, tables, zoo_peer
from benchmarks.model_pairs import Pair
from benchmarks.torch_peer import serving
from zoo import kernels
from zoo.errors import UserError
from zoo.models.inception import Unit

FAKE = Path(__file__).parent / "fake_peer.py"
ONE = ["--torch-python", sys.executable, "--model", "resnet18_lstm", "--passes", "training step", "--threads", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for tables, a processor of a known name, and both processes played."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(models, "cpu_name", lambda: "A CPU @ 1 GHz")
    monkeypatch.setattr(models, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(models, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(model_peers, "OURS", (sys.executable, str(FAKE), "ours"))
    monkeypatch.setattr(model_peers, "WORKER", FAKE)
    monkeypatch.setenv("FAKE_ASKED", str(tmp_path / "asked"))
    return tmp_path


def asked(folder) -> list[str]:
    lines = (folder / "asked").read_text().splitlines()
    (folder / "asked").unlink()
    return [line.strip() for line in lines]


def test_a_row(folder, capsys):
    models.main([*ONE, "--rounds", "3"])
    file = folder / "a-cpu-1-ghz-models.csv"
    row = tables.read(file, "model", "pass", "threads")["resnet18_lstm", "training step", "1"]
    figures = {"ours ms": "2.00", "torch ms": "4.00", "ratio": "0.500", "spread": "0.000", "rounds": "3"}
    figures |= {"ours gflops": "3000.0", "torch gflops": "1500.0", "peak gflops": "3000.0", "ours peak share": "1.00"}
    figures |= {"torch peak share": "0.50", "torch form": "compiled channels last", "ours compile seconds": "3.0"}
    figures |= {"output error": "0.0e+00", "input": "1x16x112x112x3"}
    assert {name: row[name] for name in figures} == figures
    assert float(row["update error"]) < 1e-6
    assert "eager contiguous 8.00; eager channels last 7.00; compiled contiguous 5.00" in row["torch forms ms"]
    assert "jax 1.0, torch 2.0; " in file.read_text().partition("\n")[0]
    assert "0.500" in capsys.readouterr().out
    turns = [line for line in asked(folder) if "turn" in line][-6:]
    assert turns == ["ours turn ours", "theirs turn compiled channels last"] * 3


def test_goes_on_where_it_was(folder):
    models.main(ONE)
    asked(folder)
    both = [*ONE[:4], "--passes", "inference,training step", "--threads", "1"]
    models.main(both)
    assert sum("ours load" in line for line in asked(folder)) == 1
    models.main([*both, "--again"])
    assert sum("ours load" in line for line in asked(folder)) == 2
    assert [key[1] for key in models.read(folder / "a-cpu-1-ghz-models.csv")] == ["inference", "training step"]


def test_a_table_of_other_versions_stays_as_it_is(folder, monkeypatch):
    models.main(ONE)
    before = (folder / "a-cpu-1-ghz-models.csv").read_text()
    monkeypatch.setenv("FAKE_TORCH", "2.1")
    with pytest.raises(UserError, match=r"says '# medians .* torch 2.0; .*', here are jax 1.0, torch 2.1; move"):
        models.main(ONE)
    assert (folder / "a-cpu-1-ghz-models.csv").read_text() == before


@pytest.mark.parametrize(("what", "by"), [("output", "0.01"), ("update", "1.0"), ("output", "nan"), ("update", "nan")])
def test_what_is_not_the_same_is_not_timed(what, by, folder, monkeypatch):
    monkeypatch.setenv(f"FAKE_{what.upper()}", by)
    with pytest.raises(ArithmeticError, match=f"PyTorch eager contiguous: the {what} is off by"):
        models.main(ONE)
    assert not (folder / "a-cpu-1-ghz-models.csv").exists()


def test_a_compiler_that_did_not_run_is_an_error(folder, monkeypatch):
    monkeypatch.setenv("FAKE_COMPILER", "Dynamo handed over 2 graphs, not one")
    with pytest.raises(UserError, match=r"compile did not run for resnet18_lstm, .*: Dynamo handed over 2 graphs"):
        models.main(ONE)
    assert not (folder / "a-cpu-1-ghz-models.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "resnet18_lstn"], "no model is called 'resnet18_lstn'; did you mean resnet18_lstm"),
        (["--passes", "training"], "no pass is called 'training'; did you mean training step"),
        (["--threads", "0"], "--threads '0' is neither all nor a number from 1 to"),
        (["--threads", "many"], "--threads 'many' is neither all nor a number from 1 to"),
        (["--rounds", "1"], "--rounds 1 has no spread"),
        (["--against", "tensorflow"], "--against"),
        (["--torch-python", "/no/such/python"], "--torch-python /no/such/python is no program here"),
        (["--torch-python", str(Path(__file__).parent)], "is no program here"),
    ],
)
def test_a_mistake_is_told_in_one_line(flags, message, folder):
    with pytest.raises(UserError, match=message) as error:
        models.main([*ONE[:2], *flags])
    assert "\n" not in str(error.value)


def test_a_python_without_torch_is_told(folder, monkeypatch):
    monkeypatch.setattr(model_peers, "WORKER", Path(serving.__file__).parent / "worker.py")
    with pytest.raises(UserError, match=r"No module named 'torch'; it has to be a Python after pip install torch=="):
        models.main(ONE)


def test_a_program_that_is_no_python_is_told(folder, tmp_path):
    program = tmp_path / "not_python"
    program.write_text("#!/bin/sh\necho not for this >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=r"PyTorch's process ended with exit code 3: not for this; it has to be"):
        models.main(["--torch-python", str(program)])
    program.write_text("no script")
    with pytest.raises(UserError, match="not_python: Exec format error"):
        models.main(["--torch-python", str(program)])


def test_both_sides_know_the_same_models():
    source = ast.parse((Path(serving.__file__).parent / "networks.py").read_text())
    (there,) = [
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["NETWORKS"]
    ]
    assert isinstance(there, ast.Dict)
    assert {ast.literal_eval(key) for key in there.keys if key} == set(model_pairs.PAIRS)


@pytest.mark.parametrize("name", model_pairs.PAIRS)
def test_our_side_takes_the_operands(name):
    pair = model_pairs.PAIRS[name]
    network = nnx.eval_shape(pair.create)
    network.eval()
    graph, state = nnx.split(network)
    operands = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in pair.shapes]
    jax.eval_shape(lambda state, *operands: nnx.merge(graph, state)(*operands), state, *operands)


def test_the_other_side_needs_nothing_of_the_project():
    imported = set()
    for file in Path(serving.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    beside = {file.stem for file in Path(serving.__file__).parent.glob("*.py")}
    assert imported - beside - set(sys.stdlib_module_names) == {"numpy", "torch", "torchvision"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small ConvLSTM in our process's table, and the files that it is asked with."""
    pair = Pair(
        lambda: model_pairs.ConvLSTM(2, 3, rngs=nnx.Rngs(0)), ((1, 4, 5, 6, 2),), model_pairs._CONV_LSTM, labels=False
    )
    monkeypatch.setattr(zoo_peer, "PAIRS", {"tiny": pair})
    arrays = model_pairs.weights({"conv.weight": (12, 5, 3, 3), "conv.bias": (12,)})
    np.savez(tmp_path / "weights.npz", **arrays)
    np.savez(tmp_path / "inputs.npz", **model_pairs.inputs(pair))
    files = {name: str(tmp_path / f"{name}.npz") for name in ("weights", "inputs", "result")}
    return files | {"model": "tiny", "rate": 0.1}


def test_our_side_runs_inference_with_their_arrays(tiny):
    done = zoo_peer.load(form="ours", training=False, **tiny)
    # 4 steps of a 3x3 convolution from 2 + 3 features to 4 gates of 3.
    assert done["flops"] == 4 * 2 * 5 * 6 * 9 * 5 * 12
    with np.load(tiny["weights"]) as arrays, np.load(tiny["inputs"]) as given, np.load(tiny["result"]) as result:
        kernel = arrays["conv.weight"].transpose(2, 3, 1, 0)
        expected = kernels.conv_lstm(jnp.asarray(given["0"]), jnp.asarray(kernel), jnp.asarray(arrays["conv.bias"]))
        np.testing.assert_allclose(result["output"], expected[0], rtol=1e-5, atol=1e-6)
    assert zoo_peer.turn("ours", 0.0)["milliseconds"][0] > 0


def test_our_side_takes_a_training_step(tiny, tmp_path):
    done = zoo_peer.load(form="ours", training=True, **tiny)
    assert done["flops"] == 3 * 4 * 2 * 5 * 6 * 9 * 5 * 12
    zoo_peer.updated("tiny", tiny["weights"], str(tmp_path / "before.npz"))
    with np.load(tmp_path / "before.npz") as before, np.load(tiny["inputs"]) as given:
        start = {name: jnp.asarray(before[name]) for name in ("kernel", "bias")}
        x = jnp.asarray(given["0"])

    def loss(params):
        return jnp.square(kernels.conv_lstm(x, params["kernel"], params["bias"])[0]).mean()

    value, gradients = jax.value_and_grad(loss)(start)
    with np.load(tiny["result"]) as result:
        np.testing.assert_allclose(result["loss"], value, rtol=1e-6)
        for name in start:
            np.testing.assert_allclose(result[name], start[name] - 0.1 * gradients[name], rtol=1e-5, atol=1e-7)


def test_a_step_sees_to_statistics_and_finds_theirs_after_it(tiny, monkeypatch, tmp_path):
    table = [(pattern, path.removeprefix("."), how) for pattern, path, how in model_pairs._unit("conv", "norm", "")]
    pair = Pair(lambda: Unit(2, 3, 3, axes=3, rngs=nnx.Rngs(0)), ((2, 4, 5, 6, 2),), table, labels=False)
    monkeypatch.setattr(zoo_peer, "PAIRS", {"tiny": pair})
    shapes = {"conv.weight": (3, 2, 3, 3, 3)} | {f"norm.{n}": (3,) for n in ("bias", "running_mean", "running_var")}
    arrays = model_pairs.weights(shapes)
    np.savez(tiny["weights"], **arrays, loss=np.float32(1))
    np.savez(tiny["inputs"], **model_pairs.inputs(pair))
    zoo_peer.load(form="ours", training=True, **tiny)
    zoo_peer.turn("ours", 0.0)
    zoo_peer.updated("tiny", tiny["weights"], str(tmp_path / "before.npz"))
    with np.load(tmp_path / "before.npz") as before, np.load(tiny["result"]) as after:
        assert set(before) == {"conv.kernel", "norm.bias"} == set(after) - {"loss"}
        np.testing.assert_array_equal(before["norm.bias"], arrays["norm.bias"])
        assert np.abs(after["conv.kernel"] - before["conv.kernel"]).max() > 0


def test_arrays_that_do_not_fit_are_all_named(tiny):
    np.savez(tiny["weights"], **{"conv.weight": np.zeros((12, 5, 3, 3)), "other": np.zeros(3)})
    with pytest.raises(UserError, match="missing: bias; unknown: other"):
        zoo_peer.load(form="ours", training=False, **tiny)


def test_products_are_counted_where_they_are():
    def inner(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=3)[0]

    traced = jax.make_jaxpr(jax.jit(lambda x, w: inner(x, w) @ w.T))(jnp.ones((2, 5)), jnp.ones((5, 5)))
    assert zoo_peer._products(traced.jaxpr) == 4 * 2 * 2 * 5 * 5


def test_weights_depend_on_their_names_alone():
    shapes = {"a.weight": (4, 3, 3), "a.bias": (4,), "n.running_var": (5,)}
    first, again = model_pairs.weights(shapes), model_pairs.weights(dict(reversed(shapes.items())))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert (first["n.running_var"] > 0).all()


def test_a_pass_over_time_is_one_call():
    calls = []
    assert len(serving.turn(lambda: calls.append(1), 0.0)["milliseconds"]) == len(calls) == 1
