"""`python -m benchmarks.retrieval copies|words|speed`: how well segments are found again, and how fast.

copies: of stretches of `zoo.data.real_films`, up to `--clips` of each film, spread evenly, copies are made that are
re-encoded (H.264 at CRF 38), cropped (the middle 80% of both sides), flipped (left to right), slowed (to half the pace)
and captioned (white text on a black bar over the lowest sixth). Each copy is a query, put as `zoo search query --video`
puts it. It is searched for among the stretches of all films and `--others` clips of photos that a camera moves over,
each of them one shot that need not be looked for; other stretches of the copy's own film count neither for nor against;
"mAP to the moment" is where they count against. One stretch is right, so a query's average precision is 1 / its rank.
`--held-out` asks only for stretches of films that no training here sees, still among all. `--runs` compares by what
runs of `zoo train --task embedding` make of the same vectors too.

words: the questions of retrieval_words.csv, each with the films that show what it asks for, as `zoo search query
--text` puts them, over an index of all films. A question's rank is that of the first right segment.

speed: `--rows` vectors with the mean and covariance of the embeddings in the index `--db`, in a database of their own
in `--place`, searched as `zoo search query` does; recall is that of the 10 nearest, against comparing all. Queries are
vectors of the same kind that are not in the database.

`--place` keeps what was made: a run of `copies` that was stopped goes on, `speed` finds its vectors again, and
`--db PLACE/index` is the index of `words`. With `--write` the tables go to benchmarks/results.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import av
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track
from tyro.conf import Positional

from benchmarks import on_device, tables
from zoo import command_line, publish
from zoo.data.encode import write_video
from zoo.data.real_clips import RealClips
from zoo.data.real_films import FILMS, STORED_RATE, frames_of
from zoo.errors import UserError
from zoo.models.embedder import Embedder
from zoo.video_analysis import CLASSIFIER, LONGEST, MODELS, VideoAnalyser, VideoSegment
from zoo.video_index import SENTENCES, VideoIndex, open_index, open_or_make

QUESTIONS = Path(__file__).with_name("retrieval_words.csv")
KINDS = ("re-encoded", "cropped", "flipped", "slowed", "captioned")
MADE_WITH = {"classifier": CLASSIFIER, **MODELS, "sentences": SENTENCES}
_FINE = 20  # CRF of what is not to look worse
_RATE = round(STORED_RATE)
_STRETCH = round(LONGEST / 2 * STORED_RATE)  # frames
_BATCH = 10_000  # rows written at a time
_NEAREST = 10


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures how well segments are found again, and how fast."""

    what: Annotated[Literal["copies", "words", "speed"], Positional]
    """What is measured."""
    clips: int = 6
    """Stretches of each film that are searched for."""
    others: int = 2000
    """Clips of other sources among which they are found."""
    held_out: bool = False
    """Search for stretches of held-out films only."""
    runs: tuple[Path, ...] = ()
    """Folders of trainings whose vectors are compared with the classifier's."""
    films: int | None = None
    """No more than so many films, to try it out."""
    rows: int = 1_000_000
    """Vectors in the database whose speed is measured."""
    queries: int = 200
    """Questions put to it."""
    db: Path | None = None
    """An index of real videos, for the statistics of its embeddings."""
    place: Path | None = None
    """A folder where vectors and databases are made, and stay; a temporary one without."""
    write: bool = False
    """Replace the published table."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.retrieval")
    measure = {"copies": copies, "words": words, "speed": speed}[arguments.what]
    header, rows = measure(arguments)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(header)
    if arguments.write:
        device = on_device.cpu_name()
        file = tables.RESULTS / f"{tables.slug(device)}-retrieval-{arguments.what}.csv"
        tables.write(file, f"{header}; {device}", list(rows[0]), rows)


def _films(arguments: Arguments) -> list[Any]:
    return [film for film in FILMS if film.split != "photo"][: arguments.films]


def copies(arguments: Arguments) -> tuple[str, list[dict[str, Any]]]:
    """Recall and mean average precision by kind of copy, for the classifier's vectors and those of each run."""
    heads = {run.name: _head(run) for run in arguments.runs}  # before the work, which takes long
    gallery, sources, queries = copied_vectors(arguments)
    rows = copies_found(CLASSIFIER, gallery, sources, queries)
    for name, head in heads.items():
        asked = [(kind, right, head(vectors)) for kind, right, vectors in queries]
        rows += copies_found(name, list(map(head, gallery)), sources, asked)
    return f"{len(queries)} copies among {len(gallery)} stretches of {len(set(sources))} sources", rows


def _head(run: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What a run makes of the classifier's vectors float32 [N, features]: vectors of length 1."""
    config, model = publish.trained(run)
    if config.task != "embedding" or config.start != {"backbone": CLASSIFIER}:
        raise UserError(f"{run} is no run of zoo train --task embedding over {CLASSIFIER}; name another with --runs")
    project = cast(Embedder, model).project

    def head(vectors: np.ndarray) -> np.ndarray:
        made = np.asarray(project(jnp.asarray(vectors)))
        return made / np.linalg.norm(made, axis=-1, keepdims=True)

    return head


type Asked = tuple[str, int, np.ndarray]
"""A copy: its kind, which stretch is right, and its vectors float32 [segments, features]."""


def copied_vectors(arguments: Arguments) -> tuple[list[np.ndarray], list[str], list[Asked]]:
    """Of each stretch its vectors float32 [segments, features] and its source, and the copies that are searched for."""
    gallery, sources, queries = [], [], []
    photos = RealClips("train", kinds=("photo",), clips_a_kind=arguments.others)
    with _place(arguments) as place:
        analyser = VideoAnalyser()
        vectors = KeptVectors(lambda clip, crf: analyser.embeddings(encoded(clip, crf)), place / "vectors")
        of_one_shot = KeptVectors(lambda clip: analyser._embedding(clip)[0][None], place / "vectors")
        for film in track(_films(arguments), "films and their copies", console=Console(stderr=True)):
            frames = frames_of(film)
            starts = np.arange(0, max(1, len(frames) - _STRETCH // 2), _STRETCH)
            asked = set(np.linspace(0, len(starts) - 1, min(len(starts), arguments.clips)).round().astype(int).tolist())
            if arguments.held_out and film.split != "test":
                asked = set()
            for number, start in enumerate(starts.tolist()):
                clip = np.asarray(frames[start : start + _STRETCH])
                if number in asked:
                    queries += [(kind, len(gallery), vectors(*copied(clip, kind))) for kind in KINDS]
                gallery.append(vectors(clip, _FINE))
                sources.append(film.name)
        for number in track(range(arguments.others), "clips of photos", console=Console(stderr=True)):
            gallery.append(of_one_shot(photos[number]["video"]))
            sources.append("photos")
    return gallery, sources, queries


class KeptVectors:
    """What a function makes of clips, a file each in a folder: a run that was stopped goes on where it was.

    A file is named by the pixels, and not by how they are encoded: libx264 writes other bytes each time.
    """

    def __init__(self, make: Callable[..., np.ndarray], folder: Path):
        self._make, self._folder = make, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, clip: np.ndarray, *how: int) -> np.ndarray:
        named = hashlib.sha256(repr((clip.shape, *how)).encode() + clip.tobytes())
        file = self._folder / f"{named.hexdigest()}.npy"
        if not file.exists():
            unfinished = file.with_suffix(".part.npy")
            np.save(unfinished, self._make(clip, *how))
            unfinished.rename(file)
        return np.load(file)


@contextlib.contextmanager
def _place(arguments: Arguments) -> Iterator[Path]:
    if arguments.place is not None:
        yield arguments.place
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def copies_found(by: str, gallery: list[np.ndarray], sources: list[str], queries: list[Asked]) -> list[dict[str, Any]]:
    """The figures of each kind of copy, and of all."""
    rows = []
    for kind in (*KINDS, "all"):
        ranks, among_own = [], []
        for _, right, vectors in (query for query in queries if kind in (query[0], "all")):
            ranks.append(rank(vectors, gallery, sources, right, sources[right]))
            among_own.append(rank(vectors, gallery, sources, right))
        found = np.array(ranks)
        rows.append(
            {
                "vectors": by,
                "copies": kind,
                "queries": len(found),
                "recall@1": f"{np.mean(found == 1):.4f}",
                "recall@5": f"{np.mean(found <= 5):.4f}",
                "mAP": f"{np.mean(1 / found):.4f}",
                "mAP to the moment": f"{np.mean(1 / np.array(among_own)):.4f}",
            }
        )
    return rows


def rank(
    vectors: np.ndarray, gallery: list[np.ndarray], sources: list[str], right: int, source: str | None = None
) -> int:
    """Which place the right stretch has, from 1 on; each counts by its best pair of vectors, those of `source` not."""
    scores = np.array([(part @ vectors.T).max() for part in gallery])
    others = np.array([name != source for name in sources])
    others[right] = False
    return 1 + int(np.sum(scores[others] >= scores[right]))


def copied(clip: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    """A copy of a clip uint8 [T, H, W, 3], and the CRF that it is to be encoded with."""
    height, width = clip.shape[1:3]
    if kind == "re-encoded":
        return clip, 38
    if kind == "cropped":
        clip = clip[:, height // 10 : height - height // 10, width // 10 : width - width // 10]
    elif kind == "flipped":
        clip = clip[:, :, ::-1]
    elif kind == "slowed":
        clip = clip.repeat(2, axis=0)
    else:
        bar = Image.new("RGB", (width, height // 6))
        font = ImageFont.load_default(size=max(8, height // 10))
        ImageDraw.Draw(bar).text((width // 20, 0), "and then it happened", font=font, fill=(255, 255, 255))
        clip = clip.copy()
        clip[:, height - bar.height :] = np.asarray(bar)
    return clip, _FINE


def encoded(clip: np.ndarray, crf: int) -> bytes:
    """A clip uint8 [T, H, W, 3] as an MP4 of H.264, 16 frames a second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=_RATE, options={"crf": str(crf)})
        stream.height, stream.width = (side // 2 * 2 for side in clip.shape[1:3])  # 4:2:0 wants even sides
        stream.pix_fmt = "yuv420p"
        for pixels in clip[:, : stream.height, : stream.width]:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def words(arguments: Arguments) -> tuple[str, list[dict[str, Any]]]:
    """The rank of the first right segment of each question."""
    from zoo import indexing, predictor
    from zoo.search_engine import SearchEngine

    with _place(arguments) as place:
        folder = place / "films"
        folder.mkdir(parents=True, exist_ok=True)
        for film in _films(arguments):
            write_video(folder / f"{film.name}.mp4", np.asarray(frames_of(film)), frame_rate=_RATE, enlarge=1)
        analyser = VideoAnalyser()
        index = open_or_make(place / "index", folder, MADE_WITH)
        indexing.update(index, analyser, predictor.load(SENTENCES).embed, indexing.Shard())
        engine, rows = SearchEngine(index), []
        for row in csv.DictReader(QUESTIONS.read_text(encoding="utf-8").splitlines()):
            right = {f"{name}.mp4" for name in row["films"].split()}
            hits = engine.by_words(row["words"], len(index))
            places = [number for number, hit in enumerate(hits, 1) if hit.file in right]
            if places:
                rows.append({"words": row["words"], "films": row["films"], "rank": places[0], "segments": len(places)})
        found = np.array([row["rank"] for row in rows])
        header = (
            f"{len(rows)} questions to {len(index)} segments: recall@1 {np.mean(found == 1):.3f}, recall@5 "
            f"{np.mean(found <= 5):.3f}, mean reciprocal rank {np.mean(1 / found):.3f}"
        )
    return header, rows


def speed(arguments: Arguments) -> tuple[str, list[dict[str, Any]]]:
    """Time of a query, recall, and what the database takes on disk and in memory."""
    if arguments.db is None:
        raise UserError("--db is missing: an index of real videos, whose embeddings the vectors are to be like")
    real = open_index(arguments.db)._table.to_arrow()["embedding"].combine_chunks()
    real = real.flatten().to_numpy().reshape(len(real), -1)
    draw, ask = (like(real, np.random.default_rng(seed)) for seed in (0, 1))
    with _place(arguments) as folder:
        place = folder / "drawn"
        new, begun = not place.exists(), time.perf_counter()
        index = _filled(place, draw, arguments.rows)
        index.index_vectors("embedding")
        built = time.perf_counter() - begun
        index = open_index(place)
        queries = ask(arguments.queries + 20)
        for query in queries[:20]:
            index.near("embedding", query, _NEAREST)
        times, right = [], 0
        for query in queries[20:]:
            begun = time.perf_counter()
            hits = index.near("embedding", query, _NEAREST)
            times.append(time.perf_counter() - begun)
            exact = index._table.search(query, vector_column_name="embedding").distance_type("cosine")
            exact = exact.bypass_vector_index().select(["key", "_distance"]).limit(_NEAREST).to_list()
            right += len({hit.key for hit in hits} & {row["key"] for row in exact})
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    row = {
        "rows": arguments.rows,
        "features": real.shape[1],
        "median ms": f"{1e3 * float(np.median(times)):.1f}",
        "95% ms": f"{1e3 * float(np.quantile(times, 0.95)):.1f}",
        f"recall@{_NEAREST}": f"{right / len(times) / _NEAREST:.4f}",
        "built s": f"{built:.0f}" if new else "",
        "MB on disk": f"{size / 1e6:.0f}",
        "MB of memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}",
    }
    return f"vectors like {len(real)} real ones", [row]


def like(real: np.ndarray, rng: np.random.Generator) -> Any:
    """A function that draws so many unit vectors with the mean and covariance of real ones float32 [N, features]."""
    mean = real.mean(axis=0)
    centred = (real - mean) / np.sqrt(len(real))

    def draw(count: int) -> np.ndarray:
        vectors = mean + rng.standard_normal((count, len(real)), np.float32) @ centred
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return draw


def _filled(place: Path, draw: Any, rows: int) -> VideoIndex:
    """A database of drawn vectors; of all else a row holds next to nothing."""
    import pyarrow as pa

    index = open_or_make(place, place, MADE_WITH)
    if len(index) == rows:
        return index
    if len(index):
        raise UserError(f"{place} holds {len(index)} vectors, not {rows}; remove it, or name another --place")
    pixel, one = np.zeros((1, 1, 3), np.uint8), np.ones(1, np.float32)
    first = VideoSegment(0.0, 1.0, (("", 1.0),), (), (), "", draw(1)[0], one, pixel)
    index.replace("0", "", [first], one[None])
    table = index._table
    pattern = table.to_arrow()
    batches = list(itertools.batched(range(1, rows), _BATCH))
    for numbers in track(batches, "vectors", console=Console(stderr=True)):
        vectors = draw(len(numbers))
        same = [name for name in pattern.column_names if name not in ("key", "embedding")]
        filled: dict[str, Any] = {
            name: pa.array(pattern[name].to_pylist() * len(numbers), pattern.schema.field(name).type) for name in same
        }
        filled["key"] = pa.array([f"{number:032x}" for number in numbers])
        filled["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table.add(pa.table({name: filled[name] for name in pattern.column_names}, schema=pattern.schema))
    return index


if __name__ == "__main__":
    command_line.run("python -m benchmarks.retrieval", main)
