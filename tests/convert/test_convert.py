"""The table engine, the reading of I3D's pickle without running it, and `zoo convert`."""

import os
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from zoo import hub
from zoo.convert import __main__ as command
from zoo.convert import apply_table, as_is
from zoo.convert import i3d as layout
from zoo.errors import UserError
from zoo.models.i3d import I3D, i3d


class Net(nnx.Module):
    """Two dense layers in a list and a batch normalisation."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 4, use_bias=False, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, use_scale=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


TABLE = [
    (r"dense(\d)/weight", r"layers.\1.kernel", np.transpose),
    (r"dense(\d)/bias", r"layers.\1.bias", as_is),
    (r"bn/(.*)", r"norm.\1", np.squeeze),
    (r"square/(.*)", r"layers.\1.kernel", lambda array: array.transpose(1, 0)),
]


def foreign() -> dict[str, np.ndarray]:
    shapes = {"dense0/weight": (3, 2), "dense0/bias": (3,), "dense1/weight": (4, 3)}
    shapes |= {f"bn/{name}": (1, 1, 4) for name in ("bias", "mean", "var")}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def convert(arrays: dict[str, np.ndarray]):
    return apply_table(TABLE, arrays, nnx.eval_shape(lambda: Net(nnx.Rngs(0))))


def test_each_array_lands_where_the_table_says_in_our_dtype():
    arrays = foreign()
    tree = convert(arrays)
    expected = {
        "layers": {
            "0": {"kernel": arrays["dense0/weight"].T, "bias": arrays["dense0/bias"]},
            "1": {"kernel": arrays["dense1/weight"].T},
        },
        "norm": {name: arrays[f"bn/{name}"].reshape(4) for name in ("bias", "mean", "var")},
    }
    jax.tree.map(lambda ours, theirs: np.testing.assert_array_equal(ours, theirs.astype(np.float32)), tree, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(np.float32)}


def test_all_mistakes_are_told_together():
    arrays = foreign()
    del arrays["bn/mean"], arrays["dense0/bias"]
    arrays["head/weight"] = np.zeros(2)  # no row of the table
    arrays["bn/scale"] = np.zeros(4)  # a row, but the network has no such array
    arrays["dense0/weight"] = np.zeros((5, 2))
    arrays["dense1/weight"] = np.zeros((3, 4))
    arrays["bn/var"] = np.full((1, 1, 4), "x")
    arrays["square/1"] = np.zeros((4, 3))
    with pytest.raises(UserError) as told:
        convert(arrays)
    message = str(told.value)
    assert "\n" not in message
    for part in (
        "do not fit Net",
        "missing: layers.0.bias, norm.mean;",
        "unknown: head/weight, bn/scale;",
        "given twice: layers.1.kernel from dense1/weight and square/1;",
        "dense0/weight (5, 2) gives (2, 5) instead of (2, 3) for layers.0.kernel",
        "dense1/weight (3, 4) gives (4, 3) instead of (3, 4) for layers.1.kernel",
        "bn/var (1, 1, 4) cannot become norm.var (4,)",
    ):
        assert part in message


def test_a_transform_that_an_array_does_not_suit_is_told():
    arrays = foreign()
    arrays["square/1"] = arrays.pop("dense1/weight").ravel()
    with pytest.raises(UserError, match=r"square/1 \(12,\) cannot become layers\.1\.kernel \(3, 4\)"):
        convert(arrays)


def i3d_names() -> dict[str, str]:
    """Their names to our paths, spelled out one by one."""
    places = {"Conv3d_1a_7x7": "conv_1a", "Conv3d_2b_1x1": "conv_2b", "Conv3d_2c_3x3": "conv_2c"}
    branches = {
        "Branch_0/Conv3d_0a_1x1": "branch_0",
        "Branch_1/Conv3d_0a_1x1": "branch_1a",
        "Branch_1/Conv3d_0b_3x3": "branch_1b",
        "Branch_2/Conv3d_0a_1x1": "branch_2a",
        "Branch_2/Conv3d_0b_3x3": "branch_2b",
        "Branch_3/Conv3d_0b_1x1": "branch_3",
    }
    for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        places |= {f"Mixed_{block}/{theirs}": f"mixed_{block}.{ours}" for theirs, ours in branches.items()}
    names = {f"params/Logits/Conv3d_0c_1x1/Conv_0/{leaf}": f"logits.{leaf}" for leaf in ("kernel", "bias")}
    for theirs, ours in places.items():
        names[f"params/{theirs}/Conv_0/kernel"] = f"{ours}.conv.kernel"
        names[f"params/{theirs}/BatchNorm_0/bias"] = f"{ours}.norm.bias"
        names[f"batch_stats/{theirs}/BatchNorm_0/mean"] = f"{ours}.norm.mean"
        names[f"batch_stats/{theirs}/BatchNorm_0/var"] = f"{ours}.norm.var"
    return names


def leaf_at(tree, path: str):
    for key in path.split("."):
        tree = tree[key]
    return tree


def abstract_i3d() -> I3D:
    return nnx.eval_shape(lambda: i3d(rngs=nnx.Rngs(0)))


def foreign_i3d() -> dict[str, np.ndarray]:
    """Each array is full of its own number, in the shape that their file has."""
    ours = hub.weights_of(abstract_i3d())
    arrays = {}
    for number, (theirs, path) in enumerate(i3d_names().items()):
        shape = leaf_at(ours, path).shape
        arrays[theirs] = np.full((1, 1, 1, 1, *shape) if ".norm." in path else shape, number, np.float32)
    return arrays


def pickled(arrays: dict[str, np.ndarray]) -> bytes:
    """The nested dict that their file is; module names hold a slash themselves, so the nesting is told by case."""
    tree: dict = {}
    for name, array in arrays.items():
        kind, *modules, leaf_module, leaf = name.split("/")
        node = tree.setdefault(kind, {})
        if modules[0].startswith("Mixed"):
            node = node.setdefault(modules.pop(0), {})
        node.setdefault("/".join(modules), {}).setdefault(leaf_module, {})[leaf] = array
    return pickle.dumps(tree)


def test_i3d_command_writes_what_the_pickle_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file, out = tmp_path / "weights.ckpt", tmp_path / "out"
    file.write_bytes(pickled(foreign_i3d()))
    command.main([str(file), "--to", "i3d", "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    restored = hub.weights_of(hub.restore_weights(abstract_i3d(), out))
    assert len(jax.tree.leaves(restored)) == len(i3d_names())
    for number, path in enumerate(i3d_names().values()):
        values = np.unique(leaf_at(restored, path))
        assert values.tolist() == [number], path


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("i4d", "no architecture is called 'i4d'; did you mean i3d?"),
        ("lstm", "no foreign weights for lstm can be read; there are converters for .*i3d"),
    ],
)
def test_command_names_what_it_cannot_convert(tmp_path: Path, arch: str, message: str):
    with pytest.raises(UserError, match=message):
        command.main([str(tmp_path / "weights"), "--to", arch, "--out", str(tmp_path / "out")])


def test_read_gives_each_array_as_numpy_wrote_it(tmp_path: Path):
    table = np.arange(6.0).reshape(2, 3)
    arrays = {"plain": table, "fortran": np.asfortranarray(table), "big": table.astype(">f4"), "whole": np.arange(3)}
    arrays |= {"half": table.astype(np.float16), "scalar": np.array(2.5), "empty": np.zeros((0, 3))}
    file = tmp_path / "file"
    file.write_bytes(pickle.dumps({"params": {"Mixed_3b": arrays}}))
    read = layout.read(file)
    assert list(read) == [f"params/Mixed_3b/{name}" for name in arrays]
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[f"params/Mixed_3b/{name}"], array, strict=True)


class Runs:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("function", [os.system, eval, np.load, pickle.loads])
def test_a_pickle_that_calls_something_is_refused(tmp_path: Path, function, protocol: int):
    trace = tmp_path / "trace"
    argument = f"open({str(trace)!r}, 'w')" if function is eval else f"touch {trace}"
    file = tmp_path / "file"
    file.write_bytes(pickle.dumps({"params": Runs(function, argument)}, protocol))
    with pytest.raises(UserError, match="is no pickle of nested dicts of arrays: it asks for"):
        layout.read(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"<html>not found</html>", "is no pickle"),
        (pickle.dumps({"a": np.arange(100.0)})[:-200], "is no pickle"),
        (pickle.dumps({"a": np.array(["text"])}), "dtype 'U4' are not read"),
        (pickle.dumps({"a": np.array([{}])}), "dtype 'O8' are not read"),
        (pickle.dumps({"params": {"a": "text"}}), "holds params/a, a str instead of an array"),
        (pickle.dumps(np.zeros(3).dtype), "holds a _Dtype instead of an array"),
        (pickle.dumps({}), "holds no arrays"),
        (pickle.dumps({"a": np.zeros(3)}).replace(b"K\x03\x85", b"K\x04\x85"), "is no pickle"),
    ],
)
def test_what_is_no_pickle_of_arrays_is_one_clear_line(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        layout.read(file)
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere: No such file"):
        layout.read(tmp_path / "nowhere")
