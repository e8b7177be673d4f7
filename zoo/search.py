"""`zoo search index FOLDER --db DIR`, `zoo search query --db DIR`, `zoo search serve --db DIR`: videos found again."""

import dataclasses
import functools
import io
import json
import math
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from zoo import command_line, index_description, output_files, registry
from zoo.errors import UserError
from zoo.process_flags import ALONE, GivenProcess

_COMMANDS = {
    "index": "takes the videos of a folder apart and notes what is in them",
    "query": "finds segments by a clip, by a picture or by words",
    "serve": "a page to search and play, on this machine alone",
}

_MOST = 1_000_000  # segments that are told


@dataclasses.dataclass(frozen=True)
class IndexArguments:
    """Takes the videos of a folder apart and notes what is in them; what is noted already is left as it is."""

    folder: Annotated[Path, Positional]
    """Folder of videos, whose folders are looked into too."""
    db: Path
    """Folder of the index; it is made if it is not there."""
    model: str = "i3d_kinetics400"
    """A published classifier, whose features are what segments are compared by."""
    processes: GivenProcess = ALONE


@dataclasses.dataclass(frozen=True)
class QueryArguments:
    """Finds segments by a clip, by a picture or by words."""

    db: Path
    """Folder of an index."""
    video: str | None = None
    """A clip: path or address."""
    image: str | None = None
    """A picture: path or address."""
    text: str | None = None
    """Words: "someone wrapping a present"."""
    top: int = 10
    """How many segments to tell."""
    file: str | None = None
    """Only files whose path below the folder matches, with wildcards: "holidays/*.mp4"."""
    label: str | None = None
    """Only segments with this label or object: "opening bottle"."""
    after: float | None = None
    """Only segments that end after so many seconds of their file."""
    before: float | None = None
    """Only segments that begin before so many seconds of their file."""
    sheet: Path | None = None
    """A sheet of their pictures: a .png."""
    export: Path | None = None
    """Cut the segments out, as .mp4 in this folder."""
    json: bool = False
    """Print them as JSON, and nothing else on stdout."""


@dataclasses.dataclass(frozen=True)
class ServeArguments:
    """Serves a page to search and play what is indexed, on this machine alone."""

    db: Path
    """Folder of an index."""
    port: int = 8000
    """The page is at http://127.0.0.1:PORT; 0 takes one that is free."""


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: zoo search COMMAND ...; `zoo search COMMAND --help` tells more\n")
        print("\n".join(f"  {name:10}{what}" for name, what in _COMMANDS.items()))
        return
    command, *rest = argv
    if command not in _COMMANDS:
        raise registry.unknown("command of zoo search", command, _COMMANDS)
    if command == "index":
        _index(command_line.parse(IndexArguments, rest, "zoo search index"))
    elif command == "query":
        _query(command_line.parse(QueryArguments, rest, "zoo search query"))
    else:
        _serve(command_line.parse(ServeArguments, rest, "zoo search serve"))


def _index(arguments: IndexArguments) -> None:
    if not arguments.folder.is_dir():
        raise UserError(f"there is no folder {str(arguments.folder)!r}; check the path")
    task = registry.card(arguments.model).task
    if task != "classification":
        raise UserError(f"{arguments.model} is made for {task}; zoo search takes a model for classification")
    arguments.processes.check(meet=False)

    from rich.console import Console
    from rich.progress import Progress

    from zoo import indexing, predictor, processes  # after the mistakes that can be told without waiting for JAX
    from zoo.video_analysis import VideoAnalyser
    from zoo.video_index import SENTENCES, open_or_make

    number, count = processes.place(arguments.processes)
    analyser = VideoAnalyser(arguments.model)
    models = {**analyser.names, "sentences": SENTENCES}
    folder = Path(os.path.realpath(arguments.folder))
    if index_description.read(arguments.db) is None:
        indexing.list_videos(folder, arguments.db)  # a slip of the pen must not claim the index for a folder
    index = open_or_make(arguments.db, folder, models)
    sentences = functools.cache(lambda: predictor.load(SENTENCES))  # not where nothing is new
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        reading = bar.add_task("videos", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(reading, completed=done, total=total)

        outcome = indexing.update(
            index, analyser, lambda texts: sentences().embed(texts), indexing.Shard(number, count), progress
        )
    index.optimize()
    _tell(arguments, outcome, "" if count == 1 else f"-{number + 1}-of-{count}")
    print(f"{len(index)} segments in {arguments.db}")


def _tell(arguments: IndexArguments, outcome: Any, of_shard: str) -> None:
    """How much was done, and by name what could not be read."""
    note = arguments.db / f"unreadable{of_shard}.txt"
    if outcome.unreadable:
        lines = [f"{_one_line(file)}: {_one_line(reason)}\n" for file, reason in sorted(outcome.unreadable.items())]
        output_files.write_text(note, "".join(lines))
        sys.stderr.writelines(f"zoo search index: left out {line}" for line in lines)
    else:
        note.unlink(missing_ok=True)
    counts = f"{len(outcome.indexed)} videos indexed ({outcome.segments} segments), {len(outcome.unchanged)} unchanged"
    left_out = f"{len(outcome.unreadable)} unreadable" + (f" (named in {note})" if outcome.unreadable else "")
    print(f"{counts}, {len(outcome.removed)} removed, {left_out}")


def _one_line(text: str) -> str:
    """A name with a newline in it stays one name, and one that is not UTF-8 can be written."""
    printable = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return printable.encode("utf-8", "backslashreplace").decode()


def _query(arguments: QueryArguments) -> None:
    _check_query(arguments)

    from zoo.video_index import open_index  # after the mistakes that can be told without waiting for JAX

    index = open_index(arguments.db)
    hits = _found(arguments, index)
    if arguments.json:
        print(json.dumps([_as_json(hit) for hit in hits], ensure_ascii=False))
    elif hits:
        _print(hits)
    else:
        print("nothing found", file=sys.stderr)
    if hits and arguments.sheet:
        _draw(hits, arguments.sheet)
    if hits and arguments.export:
        _export(index, hits, arguments.export)


def _check_query(arguments: QueryArguments) -> None:
    asked = [name for name in ("video", "image", "text") if getattr(arguments, name) is not None]
    if len(asked) != 1:
        given = " and ".join(f"--{name}" for name in asked) or "none of them"
        raise UserError(f"one of --video, --image and --text says what to look for, and {given} is given")
    if arguments.text is not None and not re.search(r"\w", arguments.text):
        raise UserError(f'--text {arguments.text!r} has no word in it; give some: --text "opening a bottle"')
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top} asks for no segment; give 1 or more")
    if arguments.top > _MOST:
        raise UserError(f"--top {arguments.top} asks for more segments than can be told; give {_MOST} at most")
    for name in ("after", "before"):
        seconds = getattr(arguments, name)
        if seconds is not None and not math.isfinite(seconds):
            raise UserError(f"--{name} {seconds} is no time; give seconds, such as 12.5")
    if arguments.sheet:
        if arguments.sheet.suffix.lower() != ".png":
            raise UserError(f"the sheet of pictures is a PNG, which {arguments.sheet} is not named as; end it in .png")
        output_files.check_writable(arguments.sheet)
    if arguments.export and arguments.export.exists() and not arguments.export.is_dir():
        raise UserError(f"--export {arguments.export} is no folder; name one, new or old")


def _found(arguments: QueryArguments, index: Any) -> list[Any]:
    from zoo.search_engine import SearchEngine
    from zoo.video_index import Filters

    filters = Filters(arguments.file, arguments.label, arguments.after, arguments.before)
    engine = SearchEngine(index)
    if arguments.video is not None:
        return engine.by_video(arguments.video, arguments.top, filters)
    if arguments.image is not None:
        return engine.by_image(arguments.image, arguments.top, filters)
    return engine.by_words(str(arguments.text), arguments.top, filters)


def _as_json(hit: Any) -> dict[str, Any]:
    told = {name: getattr(hit, name) for name in ("file", "start", "end", "score", "words")}
    for kind, number in (("labels", "probability"), ("frame_labels", "probability"), ("objects", "score")):
        told[kind] = [{"label": label, number: share} for label, share in getattr(hit, kind)]
    return told


def _print(hits: list[Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from zoo.contact_sheet import clock

    table = Table(box=None)
    table.add_column("score", justify="right")
    table.add_column("from", justify="right")
    table.add_column("to", justify="right")
    table.add_column("file", overflow="fold")
    table.add_column("what")
    for hit in hits:
        what = ", ".join(label for label, _ in (*hit.labels[:2], *hit.frame_labels[:1], *hit.objects[:3]))
        said = f': "{hit.words}"' if hit.words else ""
        cells = f"{hit.score:.3f}", clock(hit.start), clock(hit.end), _one_line(hit.file), f"{what}{said}"
        table.add_row(*map(escape, cells))
    Console().print(table)


def _draw(hits: list[Any], path: Path) -> None:
    import numpy as np
    from PIL import Image

    from zoo import contact_sheet
    from zoo.data.encode import write_picture

    pictures = [np.asarray(Image.open(io.BytesIO(hit.picture))) for hit in hits]
    texts = [
        [
            f"{number}  {hit.score:.3f}  {contact_sheet.clock(hit.start)} - {contact_sheet.clock(hit.end)}",
            _one_line(hit.file),
            ", ".join(label for label, _ in hit.labels[:2]),
        ]
        for number, hit in enumerate(hits, 1)
    ]
    with output_files.refusal_told(path):
        write_picture(path, contact_sheet.arrange(pictures, texts), enlarge=1)
    print(f"wrote {path}", file=sys.stderr)


def _export(index: Any, hits: list[Any], folder: Path) -> None:
    from zoo.data.decode import open_video
    from zoo.excerpt import write_excerpt

    with output_files.refusal_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for rank, hit in enumerate(hits, 1):
        stem = re.sub(r"[^\w.-]+", "_", Path(hit.file).stem)[:60]
        path = output_files.free(folder / f"{rank:02d}-{stem}-{hit.start:.1f}-{hit.end:.1f}.mp4")
        try:
            reader = open_video(index.folder / hit.file)
        except UserError as error:  # gone or changed since, which the other hits do not suffer from
            warnings.warn(f"left out {_one_line(hit.file)}, which is not as it was indexed: {error}", stacklevel=1)
            continue
        with reader:
            write_excerpt(reader, hit.start, hit.end, path)
        print(f"wrote {path}", file=sys.stderr)


def _serve(arguments: ServeArguments) -> None:
    if not 0 <= arguments.port < 65536:
        raise UserError(f"--port {arguments.port} is no port; give one up to 65535, such as 8000, or 0 for any")

    from zoo import search_server  # after the mistakes that can be told without waiting for JAX
    from zoo.video_index import open_index

    search_server.serve(open_index(arguments.db), arguments.port)


if __name__ == "__main__":
    command_line.run("zoo search", main)
