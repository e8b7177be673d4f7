"""TensorFlow.js graphs: every way a number may be stored, and files that are damaged or lead elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest

from zoo.convert.tensorflow_js import depthwise_kernel, read, without_constants
from zoo.errors import UserError

ENTRIES = [
    ({"name": "plain", "dtype": "float32", "shape": [2, 2]}, np.array([[1.5, 2], [3, 4]], np.float32)),
    ({"name": "whole", "dtype": "int32", "shape": [2]}, np.array([1, 2], np.int32)),
    ({"name": "one", "dtype": "float32", "shape": []}, np.array(7, np.float32)),
    ({"name": "half", "dtype": "float32", "shape": [2], "quantization": {"dtype": "float16"}}, np.float16([0.1, 3])),
    (
        {
            "name": "bytes",
            "dtype": "float32",
            "shape": [3],
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1},
        },
        np.array([0, 2, 255], np.uint8),
    ),
]


def write(folder: Path, **changes) -> Path:
    data = b"".join(array.tobytes() for _, array in ENTRIES)
    (folder / "a.bin").write_bytes(data[:10])
    (folder / "b.bin").write_bytes(data[10:])
    group = {"paths": ["a.bin", "b.bin"], "weights": [entry for entry, _ in ENTRIES]} | changes
    (folder / "graph.json").write_text(json.dumps({"weightsManifest": [group]}))
    return folder / "graph.json"


def test_every_kind_of_number(tmp_path: Path):
    found = read(write(tmp_path))
    assert list(found) == ["plain", "whole", "one", "half", "bytes"]
    np.testing.assert_array_equal(found["plain"], [[1.5, 2], [3, 4]])
    np.testing.assert_array_equal(found["half"], np.float16([0.1, 3]).astype(np.float32))
    np.testing.assert_array_equal(found["bytes"], [-1, 0, 126.5])
    assert list(without_constants(found)) == ["plain", "half", "bytes"]


def test_a_depthwise_kernel_keeps_its_channels():
    kernel = np.arange(18).reshape(3, 3, 2, 1)
    np.testing.assert_array_equal(depthwise_kernel(kernel)[:, :, 0, 1], kernel[:, :, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ["../a.bin", "b.bin"]}, "not beside it"),
        ({"paths": ["a.bin"]}, "damaged"),
        ({"paths": ["a.bin", "b.bin", "b.bin"]}, "bytes instead of"),
        ({"paths": ["c.bin"]}, "cannot read .*c.bin"),
        ({"weights": [{"name": "x", "dtype": "complex64", "shape": [1]}]}, "'complex64', which is not read"),
        ({"weights": []}, "bytes instead of"),
    ],
)
def test_damage_is_told(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, **changes))


def test_what_is_no_graph(tmp_path: Path):
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"no TensorFlow\.js graph model"):
        read(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "none.json")
