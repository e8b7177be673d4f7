"""The work of an index: nothing twice, nothing lost, whatever happens to the folder and to the process."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import colourists
from tests.colourists import BLUE, GREEN, RED, film
from zoo import indexing, search
from zoo.errors import UserError
from zoo.indexing import Shard, videos_below
from zoo.video_index import open_index


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    colourists.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)


def index(*arguments: str) -> None:
    search.main(["index", "videos", "--db", "db", *arguments])


def rows(db: str = "db") -> list[tuple[str, int]]:
    """(file, number) of every row."""
    found = open_index(Path(db))._table.to_arrow().select(["file", "number"]).to_pylist()
    return sorted((row["file"], row["number"]) for row in found)


def test_only_what_is_new_is_looked_at(tmp_path, monkeypatch, capsys):
    film(Path("videos/a.mkv"), RED, GREEN)
    film(Path("videos/deep/er/b.mkv"), BLUE)
    index()
    assert rows() == [("a.mkv", 0), ("a.mkv", 1), ("deep/er/b.mkv", 0)]
    assert "2 videos indexed (3 segments), 0 unchanged, 0 removed, 0 unreadable" in capsys.readouterr().out

    os.utime("videos/a.mkv")  # another time, the same bytes
    index()
    assert "0 videos indexed (0 segments), 2 unchanged, 0 removed" in capsys.readouterr().out

    before = Path("videos/a.mkv").stat()
    film(Path("videos/a.mkv"), GREEN, seed=1)
    os.utime("videos/a.mkv", ns=(before.st_atime_ns, before.st_mtime_ns))  # other bytes, the same time
    Path("videos/deep/er/b.mkv").rename("videos/c.mkv")
    index()
    assert "2 videos indexed (2 segments), 0 unchanged, 1 removed" in capsys.readouterr().out
    assert rows() == [("a.mkv", 0), ("c.mkv", 0)]


def test_links_odd_names_and_what_is_no_video():
    names = ["it's.mkv", 'say "hi".mkv', "two\nlines.mkv", "кино 映画.mkv", "%2e%2e;--.mkv"]
    for seed, name in enumerate(names):
        film(Path("videos") / name, RED, seed=seed)
    Path("videos/notes.txt").write_text("no video")
    Path("videos/.hidden.mkv").write_bytes(b"half a download")
    film(Path("videos/.bin/old.mkv"), GREEN)
    Path("videos/sub").mkdir()
    Path("videos/sub/loop").symlink_to(Path("videos").absolute())
    Path("videos/sub/self").symlink_to("self")
    Path("videos/sub/gone.mkv").symlink_to("nowhere.mkv")
    film(Path("elsewhere/far.mkv"), BLUE)
    Path("videos/sub/outside").symlink_to(Path("elsewhere").absolute())
    Path("videos/sub/z.mkv").symlink_to(Path("videos/it's.mkv").absolute())
    files, refused = videos_below(Path("videos"))
    assert sorted(files) == sorted([*names, "sub/gone.mkv", "sub/outside/far.mkv"])
    assert refused == {}
    index()
    assert {file for file, _ in rows()} == {*names, "sub/outside/far.mkv"}
    found = open_index(Path("db"))
    for name in names:
        found.remove([name])
    assert rows() == [("sub/outside/far.mkv", 0)]


def test_a_name_that_is_no_text_is_told():
    film(Path("videos/a.mkv"), RED)
    os.rename("videos/a.mkv", b"videos/\xff.mkv")
    film(Path("videos/b.mkv"), RED)
    index()
    assert rows() == [("b.mkv", 0)]
    assert Path("db/unreadable.txt").read_text() == "\\udcff.mkv: its name is not UTF-8; rename it\n"


def test_what_cannot_be_read_is_named_skipped_and_counted(capsys):
    for number in range(3):
        film(Path(f"videos/{number}.mkv"), RED, seed=number)
    whole = film(Path("videos/cut.mp4"), RED, GREEN, codec="libx264")
    index()
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    Path("videos/empty.mkv").write_bytes(b"")
    Path("videos/text.mkv").write_text("no video")
    index()
    told = capsys.readouterr()
    assert "3 unchanged, 0 removed, 3 unreadable (named in db/unreadable.txt)" in told.out
    named = [line.partition(":")[0] for line in Path("db/unreadable.txt").read_text().splitlines()]
    assert named == ["cut.mp4", "empty.mkv", "text.mkv"]
    assert "left out cut.mp4: " in told.err
    assert {file for file, _ in rows()} == {"0.mkv", "1.mkv", "2.mkv"}, "what was cut is no longer what was indexed"
    for name in named:
        Path("videos", name).unlink()
    index()
    assert not Path("db/unreadable.txt").exists()


def test_a_folder_that_changes_while_it_is_read(monkeypatch, capsys):
    film(Path("videos/c.mkv"), RED)
    index()
    for name in "ab":
        film(Path(f"videos/{name}.mkv"), RED, seed=ord(name))
    listed = indexing.videos_below

    def then_changed(folder):
        found = listed(folder)
        Path("videos/a.mkv").unlink()
        return found

    monkeypatch.setattr(indexing, "videos_below", then_changed)
    stamps = iter(range(100))
    stamp = indexing._stamp
    monkeypatch.setattr(indexing, "_stamp", lambda path: next(stamps) if path.name == "b.mkv" else stamp(path))
    index()
    assert {file for file, _ in rows()} == {"c.mkv"}
    assert Path("db/unreadable.txt").read_text().splitlines() == [
        "a.mkv: No such file or directory",
        "b.mkv: it was changed while it was read; index again",
    ]


def test_an_empty_folder_empties_no_index(monkeypatch):
    film(Path("videos/deep/a.mkv"), RED)
    index()
    Path("videos").rename("unmounted")
    Path("videos").mkdir()
    with pytest.raises(UserError, match="holds no video; nothing was changed"):
        index()
    assert rows() == [("deep/a.mkv", 0)]
    film(Path("videos/b.mkv"), RED)
    refusing = {"deep": "Input/output error"}
    monkeypatch.setattr(indexing, "videos_below", lambda folder: (["b.mkv"], refusing))
    index()
    assert rows() == [("b.mkv", 0), ("deep/a.mkv", 0)], "below a folder that cannot be read nothing is gone"


def test_a_folder_without_videos_does_not_claim_the_index():
    Path("empty").mkdir()
    with pytest.raises(UserError, match="empty holds no video; nothing was changed in db"):
        search.main(["index", "empty", "--db", "db"])
    assert not Path("db").exists()
    film(Path("videos/a.mkv"), RED)
    index()
    assert rows() == [("a.mkv", 0)]


def test_a_pipe_is_named_and_never_opened(monkeypatch):
    """Whoever opens one waits until somebody writes to it."""

    def sha256_of(path: Path) -> str:
        assert not path.is_fifo()
        return path.name

    monkeypatch.setattr(indexing.download, "sha256_of", sha256_of)
    film(Path("videos/a.mkv"), RED)
    os.mkfifo("videos/b.mkv")
    index()
    assert rows() == [("a.mkv", 0)]
    assert Path("db/unreadable.txt").read_text() == "b.mkv: it is a pipe, a socket or a device, and no file\n"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_are_all_of_it_and_apart(count: int):
    files = [f"{number}.mkv" for number in range(200)]
    parts = [[file for file in files if Shard(number, count).has(file)] for number in range(count)]
    assert sorted(itertools.chain.from_iterable(parts)) == sorted(files)
    assert min(map(len, parts)) > 0.5 * len(files) / count


def start(*arguments: str, seconds: float) -> subprocess.Popen:
    environment = os.environ | {"COLOURISTS_LOG": "log", "COLOURISTS_SECONDS": str(seconds), "JAX_PLATFORMS": "cpu"}
    root = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.colourists", "index", "videos", "--db", "db", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_and_shared_work_loses_and_doubles_nothing():
    expected = []
    for number in range(8):
        colours = (RED, GREEN, BLUE)[: 1 + number % 3]
        film(Path(f"videos/{number}.mkv"), *colours, seed=number)
        expected += [(f"{number}.mkv", part) for part in range(len(colours))]
    hers = {file for file, _ in expected if Shard(1, 2).has(file)}

    def kept() -> set[str]:
        """Files of hers that are indexed."""
        made = any(path.suffix == ".lance" for path in Path("db").glob("*"))
        return hers & {file for file, _ in rows()} if made else set()

    both = [start("--num-processes", "2", "--process-id", str(process), seconds=0.3) for process in range(2)]
    while not kept():
        assert both[1].poll() is None, both[1].communicate()
        time.sleep(0.02)
    both[1].send_signal(signal.SIGKILL)
    both[1].wait()
    before = kept()
    assert 1 <= len(before) < len(hers), "some, not all"
    _, told = both[0].communicate()
    assert both[0].returncode == 0, told
    assert set(rows()) == {row for row in expected if row[0] not in hers - before}

    Path("log").unlink()
    again = start("--num-processes", "2", "--process-id", "1", seconds=0.01)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert rows() == expected
    assert sorted(Path("log").read_text().split()) == sorted(hers - before)
    assert json.loads(Path("db/index.json").read_text())["format"] == 1


def test_mistakes(tmp_path):
    film(Path("videos/a.mkv"), RED)
    for arguments, message in [
        (["index", "nowhere", "--db", "db"], "there is no folder 'nowhere'"),
        (
            ["index", "videos", "--db", "db", "--num-processes", "4"],
            "go together; --process-id is missing",
        ),
        (["index", "videos", "--db", "db", "--model", "centernet_coco"], "is made for detection"),
        (["index", "videos", "--db", "videos"], "videos holds something else than an index"),
        (["look"], "no command of zoo search is called 'look'"),
    ]:
        with pytest.raises(UserError, match=message):
            search.main(arguments)
    assert not Path("db").exists() or not np.any([path.suffix == ".lance" for path in Path("db").iterdir()])
