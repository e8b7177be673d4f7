"""PyTorch's files, read without PyTorch: sound ones in full, and nothing of a hostile or broken one."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo.convert import pytorch
from zoo.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = ("zip", "legacy")


class Global:
    """Pickled as a name, whether or not it can be imported here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Built:
    """Pickled as `made` and, if there is a state, the setting of its attributes."""

    def __init__(self, made: object, state: object = None):
        self.made, self.state = made, state


class Call:
    """Pickled as a call."""

    def __init__(self, what: object, *arguments: object):
        self.what, self.arguments = what, arguments


class Storage:
    """Pickled as the name of a storage."""

    def __init__(self, key: str, length: int, kind: str = "FloatStorage"):
        self.pid = ("storage", Global("torch", kind), key, "cpu", length)


class Writer(pickle._Pickler):  # the one in Python, because the one in C checks that names can be imported
    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Built):
            self.save(obj.made)
            self.save(obj.state)
            self.write(pickle.BUILD)
        elif isinstance(obj, Call):
            self.save(obj.what)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def pickled(tree: object) -> bytes:
    file = io.BytesIO()
    Writer(file, protocol=2).dump(tree)
    return file.getvalue()


def write(path: Path, form: str, tree: object, **storages: bytes) -> Path:
    """A file in either format around a pickle of our own; float32 storages."""
    if form == "legacy":
        start = [pytorch._LEGACY_START, pickled(1001), pickled({"little_endian": True})]
        lengths = {key: (len(data) // 4).to_bytes(8, "little") for key, data in storages.items()}
        rows = [lengths[key] + data for key, data in storages.items()]
        path.write_bytes(b"".join([*start, pickled(tree), pickled(list(storages)), *rows]))
        return path
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("made/data.pkl", pickled(tree))
        for key, data in storages.items():
            file.writestr(f"made/data/{key}", data)
    return path


def tensor(storage: object, offset: object, size: object, stride: object) -> Call:
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, size, stride, False, hooks)


SIX = np.arange(6, dtype="<f4")


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_reads_golden(form: str) -> dict[str, np.ndarray]:
    """Names, values and dtypes are those that torch.load finds."""
    tensors = pytorch.read(GOLDEN / f"pytorch_{form}.pth")
    with np.load(GOLDEN / "pytorch.npz") as golden:
        assert list(tensors) == golden.files
        for name, expected in golden.items():
            found = tensors[name]
            assert found.dtype == ("bfloat16" if "bfloat16" in name else expected.dtype), name
            np.testing.assert_array_equal(found.astype(expected.dtype), expected, strict=True, err_msg=name)
    return tensors


def test_reads_what_torch_reads(form: str):
    tensors = assert_reads_golden(form)
    assert np.shares_memory(tensors["model.sheet"], tensors["model.window"])
    with pytest.raises(ValueError, match="read-only"):
        tensors["model.window"][0, 0] = 0


def test_reads_the_writer_of_these_tests(form: str, tmp_path: Path):
    """So that what the next tests see refused is refused for its own sake."""
    tree = {"a": {1: tensor(Storage("k", 6), 1, (2, 2), (3, 1))}, "epoch": 3}
    tensors = pytorch.read(write(tmp_path / "sound.pth", form, tree, k=SIX.tobytes()))
    assert list(tensors) == ["a.1"]
    np.testing.assert_array_equal(tensors["a.1"], [[1, 2], [4, 5]])


@pytest.mark.parametrize(("kind", "dtype"), [("FloatStorage", ">f4"), ("HalfStorage", ">f2"), ("LongStorage", ">i8")])
def test_big_endian_archive(kind: str, dtype: str, tmp_path: Path):
    values = np.array([1, -2, 300])
    tree = {"a": tensor(Storage("k", 3, kind), 0, (3,), (1,))}
    path = write(tmp_path / "big.pth", "zip", tree, k=values.astype(dtype).tobytes())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("made/byteorder", "big")
    np.testing.assert_array_equal(pytorch.read(path)["a"], values)


def test_bfloat16_from_a_big_endian_machine(tmp_path: Path):
    """bfloat16 is the upper half of a float32."""
    tree = {"a": tensor(Storage("k", 2, "BFloat16Storage"), 0, (2,), (1,))}
    upper = (np.array([1.5, -8], np.float32).view(np.uint32) >> 16).astype(">u2")
    path = write(tmp_path / "big.pth", "zip", tree, k=upper.tobytes())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("made/byteorder", "big")
    np.testing.assert_array_equal(pytorch.read(path)["a"].astype(np.float32), [1.5, -8])


HOSTILE = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("numpy", "load"),
    ("torch", "load"),
    ("torch", "nn.modules.linear.Linear"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("collections", "OrderedDict.__init__"),
    ("collections", "namedtuple"),
]


@pytest.mark.parametrize(("module", "name"), HOSTILE)
def test_names_are_refused(module: str, name: str, form: str, tmp_path: Path):
    path = write(tmp_path / "hostile.pth", form, {"a": Global(module, name)})
    with pytest.raises(UserError, match=f"hostile.pth: it asks for {module}.{name}; give a state_dict"):
        pytorch.read(path)


def test_nothing_runs(form: str, tmp_path: Path):
    marker = tmp_path / "it ran"
    call = Call(Global("os", "system"), f"touch '{marker}'")
    for index, tree in enumerate([call, {"a": call}, tensor(call, 0, (1,), (1,)), {call: 1}]):
        with pytest.raises(UserError, match=r"asks for os\.system"):
            pytorch.read(write(tmp_path / f"{index}.pth", form, tree))
    start = pytorch._LEGACY_START
    for index, rest in enumerate([pickled(call), pickled(1001) + pickled(call)]):
        path = tmp_path / f"header{index}.pth"
        path.write_bytes(start + rest)
        with pytest.raises(UserError, match=r"asks for os\.system"):
            pytorch.read(path)
    tree = {"a": tensor(Storage("k", 6), 0, (6,), (1,))}
    path = write(tmp_path / "order.pth", "legacy", tree)
    path.write_bytes(path.read_bytes().removesuffix(pickled([])) + pickled(call))
    with pytest.raises(UserError, match=r"asks for os\.system"):
        pytorch.read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")],
)
@pytest.mark.parametrize("attribute", ["__init__", "__new__", "__setstate__", "fromkeys", "dtype"])
def test_stand_ins_cannot_be_changed(name: tuple[str, str], attribute: str, form: str, tmp_path: Path):
    """Setting an attribute of a class would outlast the reading."""
    for state in ({attribute: 1}, (None, {attribute: 1})):
        with pytest.raises(UserError):
            pytorch.read(write(tmp_path / "hostile.pth", form, {"a": Built(Global(*name), state)}))
    made = tensor(Storage("k", 6), 0, (6,), (1,))
    with pytest.raises(UserError, match="a tensor with attributes"):
        pytorch.read(write(tmp_path / "hostile.pth", form, {"a": Built(made, (None, {attribute: 1}))}, k=SIX.tobytes()))
    assert_reads_golden(form)


OUTSIDE = [
    (0, (7,), (1,)),
    (6, (1,), (1,)),
    (1, (2, 3), (3, 1)),
    (-1, (2,), (1,)),
    (5, (6,), (-1,)),
    (0, (-2,), (-1,)),
    (0, (2, 2), (1,)),
    (0, (2**62, 2**62), (0, 0)),
    (2**64, (1,), (1,)),
    (0.5, (1,), (1,)),
    (float("nan"), (9,), (1,)),
    (0, ("2",), (1,)),
    (None, (2,), (1,)),
    (0, 6, 1),
]


@pytest.mark.parametrize(("offset", "size", "stride"), OUTSIDE)
def test_views_outside_of_their_storage(offset: object, size: object, stride: object, form: str, tmp_path: Path):
    tree = {"a": tensor(Storage("k", 6), offset, size, stride)}
    with pytest.raises(UserError, match="damaged or cut short"):
        pytorch.read(write(tmp_path / "outside.pth", form, tree, k=SIX.tobytes()))


BROKEN = {
    "short storage": tensor(Storage("k", 7), 0, (6,), (1,)),
    "long storage": tensor(Storage("k", 5), 0, (5,), (1,)),
    "endless storage": tensor(Storage("k", 2**60), 0, (5,), (1,)),
    "negative length": tensor(Storage("k", -6), 0, (0,), (1,)),
    "storage that is not there": tensor(Storage("other", 6), 0, (6,), (1,)),
    "two dtypes": [tensor(Storage("k", 6), 0, (6,), (1,)), tensor(Storage("k", 6, "IntStorage"), 0, (6,), (1,))],
    "no storage": tensor("k", 0, (6,), (1,)),
    "no arguments": Call(Global("torch._utils", "_rebuild_tensor_v2")),
    "a storage called": Call(Global("torch", "FloatStorage"), 3),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_storages(broken: str, form: str, tmp_path: Path):
    with pytest.raises(UserError, match="damaged or cut short"):
        pytorch.read(write(tmp_path / "broken.pth", form, {"a": BROKEN[broken]}, k=SIX.tobytes()))


def test_dicts_without_end(form: str, tmp_path: Path):
    loop: dict[str, object] = {}
    loop["again"] = loop
    doubled: dict[str, object] = {"a": 1}
    for _ in range(40):  # spelt out, these are 2**40 names
        doubled = {"left": doubled, "right": doubled}
    for tree in (loop, doubled):
        with pytest.raises(UserError, match="the same dict twice"):
            pytorch.read(write(tmp_path / "endless.pth", form, tree))


def test_cut_short(form: str, tmp_path: Path):
    whole = (GOLDEN / f"pytorch_{form}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth"):
            pytorch.read(path)


def test_damaged(form: str, tmp_path: Path):
    """With any byte wrong the file is refused with one line or, where only a number changed, read."""
    whole = (GOLDEN / f"pytorch_{form}.pth").read_bytes()
    path = tmp_path / "damaged.pth"
    draw = np.random.default_rng(0)
    messages = []
    for place in draw.choice(len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= draw.integers(1, 256)
        path.write_bytes(damaged)
        try:
            pytorch.read(path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no file that torch.save writes"),
        (b"<html>404</html>", "no file that torch.save writes"),
        (pickle.dumps({"a": 1}), "no file that torch.save writes"),
        (pytorch._LEGACY_START + pickle.dumps(1000, 2) + pickle.dumps({}, 2), "its format is of version 1000"),
    ],
)
def test_other_files(content: bytes, told: str, tmp_path: Path):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        pytorch.read(path)


def test_no_file(tmp_path: Path):
    for path, told in [(tmp_path / "missing.pth", "No such file"), (tmp_path, "directory")]:
        with pytest.raises(UserError, match=told):
            pytorch.read(path)


def test_no_tensors(form: str, tmp_path: Path):
    with pytest.raises(UserError, match="holds no tensors"):
        pytorch.read(write(tmp_path / "empty.pth", form, {"epoch": 3}))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "no network")
    with pytest.raises(UserError, match="damaged"):
        pytorch.read(tmp_path / "other.zip")


def test_transforms_of_layers():
    conv = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert pytorch.kernel(conv)[4, 6, 1, 0] == conv[0, 1, 4, 6]
    assert pytorch.kernel(conv[..., None]).shape == (5, 7, 1, 3, 2)
    assert pytorch.dense_kernel(conv[..., 0, 0])[2, 1] == conv[1, 2, 0, 0]
    assert list(pytorch.without_counters({"bn.weight": conv, "bn.num_batches_tracked": conv})) == ["bn.weight"]
