"""`python -m benchmarks.input_pipeline`: how many training clips a second reach the device, ours and others' ways.

A clip is 16 frames at 8 a second from anywhere in a video, a square out of it at up to 1.25 times the size resized to
112x112, mirrored every other time; batches of 8. The videos are pieces of ten seconds of real films, 256 pixels high,
H.264 at their own frame rates, 17 to 30 a second, or those in `--data`. Ours is what `zoo train` reads through, the
batch put on the device; the others decode one clip after the other, with the decoder's own threads. They take turns,
each begun anew and given a second to get going. The table goes to benchmarks/results/<CPU>-input-pipeline.csv.

`--endurance CLIPS` reads so many clips and prints the process's memory at each tenth of them.
"""

import contextlib
import dataclasses
import datetime
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import track

from benchmarks import tables
from benchmarks.model_peers import Peer, PeerError
from benchmarks.on_device import cpu_name
from zoo import command_line
from zoo.data import loader, open_dataset
from zoo.data.decode import open_video
from zoo.data.real_films import FILMS, fetched
from zoo.data.video_writer import VideoWriter
from zoo.errors import UserError
from zoo.fine_tuning import CLIPS

LARGEST = 1.25  # times the short side, as `VideoClips` draws
BATCH = 8
PIECE_SECONDS, PIECES, HEIGHT = 10.0, 4, 256
FIELDS = ("pipeline", "clips a second", "spread", "of plain PyAV", "rounds")
WORKER = Path(__file__).parent / "input_peer" / "decoders.py"
PLAIN = "PyAV, one after the other"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times the ways from video files to training clips on this machine."""

    peer_python: str | None = None
    """The Python of an environment with decord or torchcodec, which are then timed as well."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Processes of ours that decode; 0 is two threads."""
    rounds: int = 7
    """Turns of each."""
    seconds: float = 8.0
    """Of a turn."""
    data: Path | None = None
    """A folder of class folders with videos in them."""
    endurance: int = 0
    """Read so many clips, and tell the memory, in place of timing."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.input_pipeline")
    if arguments.rounds < 2:
        raise UserError(f"--rounds {arguments.rounds} has no spread; give at least 2")
    if min(arguments.workers) < 0:
        raise UserError(f"--workers {min(arguments.workers)}: a number of processes is 0 or more")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or _pieces(Path(folder))
        source = open_dataset(f"folder:{data}", "train", preprocessing=CLIPS)
        if arguments.endurance:
            _endure(source, arguments.endurance)
        else:
            _compare(source, arguments)


def _pieces(folder: Path) -> Path:
    """Pieces of the films that are long enough, a class folder a film."""
    for film in track([film for film in FILMS if film.split != "photo"], description="cutting films"):
        with tempfile.TemporaryDirectory() as place, open_video(fetched(film, Path(place))) as video:
            size = HEIGHT, round(video.width * HEIGHT / video.height / 2) * 2
            (folder / "train" / film.name).mkdir(parents=True)
            pieces = min(PIECES, max(1, int(video.duration // PIECE_SECONDS)))
            frames = video.frames(size)
            for number in range(pieces):
                path = folder / "train" / film.name / f"{number}.mp4"
                with VideoWriter(path) as writer:
                    for seconds, frame in frames:
                        since = seconds - number * PIECE_SECONDS
                        writer.write(max(0.0, since), frame)
                        if since >= PIECE_SECONDS:
                            break
    return folder


def _compare(source: Any, arguments: Arguments) -> None:
    paths = [str(source.videos.video(number)) for number in range(len(source))]
    with contextlib.ExitStack() as stack:
        ways: dict[str, Any] = {f"ours, {count} workers": _ours(source, count) for count in arguments.workers}
        here = stack.enter_context(_peer(sys.executable))
        versions = {"jax": jax.__version__, "av": here.ask("hello")["versions"]["pyav"]}
        ways[PLAIN] = _theirs(here, "pyav", paths)
        if arguments.peer_python:
            there = stack.enter_context(_peer(arguments.peer_python))
            found = there.ask("hello")["versions"]
            for name in {"decord", "torchcodec"} & set(found):
                ways[name], versions[name] = _theirs(there, name, paths), found[name]
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in track(range(arguments.rounds), description="taking turns"):
            for name, way in ways.items():
                rates[name].append(way(arguments.seconds, turn))
    rows = []
    for name, found in rates.items():
        quarter, median, three = statistics.quantiles(found, n=4)
        shares = [ours / plain for ours, plain in zip(found, rates[PLAIN], strict=True)]
        figures = {"clips a second": f"{median:.2f}", "spread": f"{(three - quarter) / median:.3f}"}
        rows.append({"pipeline": name, **figures, "of plain PyAV": f"{statistics.median(shares):.2f}"})
        rows[-1]["rounds"] = str(arguments.rounds)
        Console().print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    what = f"{len(paths)} videos, turns of {arguments.seconds:g} s, on {cpu_name()} ({os.cpu_count()} cores)"
    file = tables.RESULTS / f"{tables.slug(cpu_name())}-input-pipeline.csv"
    tables.write(file, f"{what}; {told}; {datetime.date.today().isoformat()}", FIELDS, rows)


def _ours(source: Any, workers: int) -> Any:
    def turn(seconds: float, seed: int) -> float:
        batches = loader.training_batches(source, BATCH, seed, workers=workers)
        with contextlib.closing(batches):
            for _ in range(1 + workers):
                jax.device_put(next(batches)["video"])
            begun, count = time.monotonic(), 0
            while time.monotonic() - begun < seconds:
                jax.block_until_ready(jax.device_put(next(batches)["video"]))
                count += BATCH
            return count / (time.monotonic() - begun)

    return turn


@contextlib.contextmanager
def _peer(python: str) -> Iterator[Peer]:
    try:
        peer = Peer(f"the process of {python}", (python, str(WORKER)), {})
    except OSError as error:
        raise UserError(f"{python} cannot be run: {error.strerror}; give the Python of an environment") from error
    try:
        peer.ask("hello")
        yield peer
    except PeerError as error:
        raise UserError(f"{python}: {error}; it has to be a Python with numpy, pillow and a decoder") from error
    finally:
        peer.close()


def _theirs(peer: Peer, reader: str, paths: list[str]) -> Any:
    lengths = []
    for path in paths:
        with open_video(path) as video:
            lengths.append(video.duration)
    sees = {name: CLIPS[name] for name in ("num_frames", "frame_rate")}
    drawn = {"size": CLIPS["crop"], "short": CLIPS["resize_short"], "largest": LARGEST}

    def turn(seconds: float, seed: int) -> float:
        told = {"reader": reader, "paths": paths, "lengths": lengths, **sees, **drawn}
        peer.ask("turn", seconds=1.0, seed=seed, **told)
        found = peer.ask("turn", seconds=seconds, seed=seed + 1, **told)
        return found["clips"] / found["seconds"]

    return turn


def _endure(source: Any, clips: int) -> None:
    """Prints the resident memory while clips are read; it is to stay where it is after the first tenth."""
    batches = loader.training_batches(source, BATCH, 0)
    total, page = clips // BATCH, os.sysconf("SC_PAGESIZE")
    with contextlib.closing(batches):
        for number in track(range(1, total + 1), description="reading"):
            jax.block_until_ready(jax.device_put(next(batches)["video"]))
            if number % max(1, total // 10) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"{number * BATCH} clips: {pages * page / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    command_line.run("python -m benchmarks.input_pipeline", main)
