"""`zoo evaluate --model M --dataset D`: a published model's figures on held-out videos, by a stated protocol.

The folder `--out` gets results.json. Of a classifier it gets a line for each video as well (answers.jsonl),
confusion.png and, if any could not be read, unreadable.txt: the same command goes on where it was stopped, and looks
again at what could not be read. Many processes share the videos: each has files of its own (answers-1.jsonl), and the
one that finishes last makes the figures of all their lines. Of a network that predicts frames it gets errors.png.
"""

import concurrent.futures
import dataclasses
import json
import math
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from zoo import command_line, registry
from zoo.data.labelled_videos import LabelledVideos, as_labels, labelled_videos
from zoo.data.transforms import Preprocessing
from zoo.data.unreadable import Unreadable
from zoo.errors import UserError
from zoo.metrics.classification import by_class, head_middle_tail
from zoo.process_flags import ALONE, GivenProcess
from zoo.registry import ModelCard
from zoo.work_list import WorkList

_TOP = 5
_READ_AHEAD = 2  # videos decoded while one is looked at
_VIDEOS = 1000  # that predictions are measured on
_CONFUSED = 20  # classes that the picture shows at most: those with the most mistakes


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures a published classifier, or network that predicts frames, on held-out videos."""

    model: str
    """A published model for classification or prediction: see `zoo list`."""
    dataset: str | None = None
    """kinetics400, kinetics600, kinetics700, imagenet, ucf101, folder:DIR (class folders) or csv:FILE (columns path,
    label) for a classifier. For prediction one of `zoo train`'s, such as moving_mnist; what the card's figures are of
    without."""
    data: Path | None = None
    """Where the data set lies, if its name does not say so."""
    split: str = "test"
    """"train", "test" (which a data set may call val), or "all"."""
    clips: int | None = None
    """Windows spread evenly over each video, whose probabilities are averaged; as many as the card's figures are of,
    or 1."""
    crops: int | None = None
    """Squares along the long side of each frame; as many as the card's figures are of, or 1."""
    verify: bool = False
    """Fail unless the card's figures come out, within the card's tolerance."""
    out: Path | None = None
    """Folder for the results: evaluations/<model>-<dataset> without."""
    json: bool = False
    """Print the results as JSON, and nothing else on stdout."""
    processes: GivenProcess = ALONE


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "zoo evaluate")
    if arguments.split not in ("train", "test", "all"):
        raise UserError(f"--split {arguments.split} is not known; there are train, test, all")
    card = registry.card(arguments.model)
    measures = {"classification": _classification, "prediction": _prediction}
    if card.task not in measures:
        raise UserError(f"{card.name} is made for {card.task}; zoo evaluate takes a model for {' or '.join(measures)}")
    if arguments.verify and card.verification is None:
        raise UserError(f"the card of {card.name} states no protocol and tolerance, without which --verify cannot fail")
    measured = measures[card.task](arguments, card)
    if measured is None:  # the process that finishes last tells
        return
    results, out = measured
    _write(out / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        _print(arguments, results, out)
    if arguments.verify:
        _verify(card, results)


def _classification(arguments: Arguments, card: ModelCard) -> tuple[dict[str, Any], Path] | None:
    dataset = arguments.dataset
    if dataset is None:
        raise UserError(f"say what {card.name} is to be measured on with --dataset, such as folder:DIR")
    arguments = _with_views(arguments, card)
    if arguments.verify:
        _check_verifiable(arguments, card)
    videos = labelled_videos(dataset, arguments.split, arguments.data)
    places = as_labels(videos.classes, card.labels)
    out = _out(arguments, card, dataset)
    answers = _answers(arguments, videos, out)
    if answers is None:
        return None
    results = figures(answers, videos, places) | {"protocol": _protocol(arguments, card), "snapshot": videos.snapshot}
    _draw(answers, videos, places, card.labels, out / "confusion.png")
    return results, out


def _prediction(arguments: Arguments, card: ModelCard) -> tuple[dict[str, Any], Path]:
    told = card.verification or {}
    dataset = arguments.dataset or told.get("dataset")
    if dataset is None:
        raise UserError(f"say what {card.name} is to be measured on with --dataset, such as moving_digits")
    if arguments.verify and dataset != told["dataset"]:
        raise UserError(f"the figures on the card of {card.name} are of {told['dataset']}; leave out --dataset")
    wrong = [flag for flag in ("clips", "crops") if getattr(arguments, flag) is not None]
    if wrong or arguments.split != "test":
        flag = wrong[0] if wrong else "split"
        raise UserError(f"--{flag} {getattr(arguments, flag)} is for classifiers; leave it out for {card.name}")
    from zoo import prediction_errors, processes  # after the mistakes that can be told without waiting for JAX
    from zoo.predictor import load

    if processes.place(arguments.processes)[1] > 1:
        raise UserError(f"{card.name} predicts frames, which a single process measures; start one")

    context = card.preprocessing["num_frames"]
    options = {"data": str(arguments.data)} if arguments.data else {}
    model = load(card.name).model
    count = told.get("videos", _VIDEOS)
    videos = prediction_errors.held_out(dataset, count, card.preprocessing, model.channels, **options)
    errors = prediction_errors.errors_of_model(model, videos, context, card.name)
    baselines = prediction_errors.errors_of_baselines(videos, context)
    out = _out(arguments, card, dataset)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    prediction_errors.draw({card.name: errors, **baselines}, out / "errors.png")
    results = {
        "videos": len(videos),
        **{name: float(values.mean()) for name, values in errors.items()},
        **{f"mse_{name}": float(values["mse"].mean()) for name, values in baselines.items()},
        "by_frame": {name: values.tolist() for name, values in errors.items()},
        "protocol": f"{context} frames seen, {context} predicted, means over these",
        "snapshot": f"the first {len(videos)} videos of {dataset}, split test",
    }
    return results, out


def _out(arguments: Arguments, card: ModelCard, dataset: str) -> Path:
    return arguments.out or Path("evaluations") / f"{card.name}-{dataset.partition(':')[0]}"


def _with_views(arguments: Arguments, card: ModelCard) -> Arguments:
    """Clips and crops as they were asked for, else as the card's figures are of."""
    views = {}
    for flag in ("clips", "crops"):
        asked = getattr(arguments, flag)
        views[flag] = (card.verification or {}).get(flag, 1) if asked is None else asked
        if views[flag] < 1:
            raise UserError(f"--{flag} {asked} looks at nothing; give 1 or more")
    return dataclasses.replace(arguments, **views)


def _check_verifiable(arguments: Arguments, card: ModelCard) -> None:
    told = card.verification
    assert told is not None
    if (arguments.clips, arguments.crops) != (told["clips"], told["crops"]):
        views = f"{told['clips']} clips x {told['crops']} crops"
        raise UserError(f"the figures on the card of {card.name} are of {views}; leave out --clips and --crops")


def _protocol(arguments: Arguments, card: ModelCard) -> str:
    sees = Preprocessing(**card.preprocessing)
    whole = "x".join(map(str, sees.resize_to)) if sees.resize_to else f"a short side of {sees.resize_short}"
    return (
        f"{arguments.clips} clips x {arguments.crops} crops of {sees.num_frames} frames at {sees.frame_rate:g} a "
        f"second, {sees.crop}x{sees.crop} out of {whole}, {sees.interpolation}"
        f"{'' if sees.antialias else ' without antialiasing'}"
    )


def _answers(arguments: Arguments, videos: LabelledVideos, out: Path) -> list[dict[str, Any]] | None:
    """For each video that can be read {"video": number, "top": [classes, best first], "probability": of the first}.

    None while other processes have videos to look at.
    """
    from zoo import processes  # after the mistakes that can be told without waiting for JAX

    settings = {
        "model": arguments.model,
        "snapshot": videos.snapshot,
        "clips": arguments.clips,
        "crops": arguments.crops,
    }
    place = processes.place(arguments.processes)
    try:
        with WorkList(out, settings, len(videos), place) as work:
            unreadable = Unreadable(len(videos))
            unreadable.write_to(out / f"unreadable{work.mark}.txt")
            for number, answer in _looked_at(arguments, videos, work.missing):
                if isinstance(answer, str):
                    unreadable.add(number, answer)
                work.note(number, {"unreadable": answer} if isinstance(answer, str) else answer)
        rows = work.rows()
        if left := len(videos) - len(rows):
            done = f"process {place[0]} of {place[1]} has done its part"
            print(f"zoo evaluate: {done}; {left} of {len(videos)} videos are left to others", file=sys.stderr)
            return None
        for number, row in rows.items():
            if "unreadable" in row:
                unreadable.add(number, row["unreadable"])
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    if len(unreadable.messages) == len(videos):
        raise UserError(f"none of {len(videos)} videos can be read; {out / f'unreadable{work.mark}.txt'} says why")
    return [{"video": number, **row} for number, row in rows.items() if "unreadable" not in row]


def _looked_at(
    arguments: Arguments, videos: LabelledVideos, numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    if not numbers:
        return
    from zoo.predictor import load  # after the mistakes that can be told without waiting for JAX

    predictor = load(arguments.model)

    def read(number: int) -> np.ndarray | str:
        try:
            views = predictor.preprocess.sample(videos.video(number), arguments.clips, arguments.crops)
        except UserError as error:
            return str(error)
        return views.reshape(-1, *views.shape[2:])

    console = Console(stderr=True)
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(read, number) for number in numbers[:_READ_AHEAD])
        for place, number in enumerate(track(numbers, description="videos", console=console)):
            views = coming.popleft().result()
            if place + _READ_AHEAD < len(numbers):
                coming.append(reader.submit(read, numbers[place + _READ_AHEAD]))
            if isinstance(views, str):
                yield number, views
                continue
            probabilities = predictor.probabilities(map(predictor.preprocess.scale, views))
            best = np.argsort(-probabilities, kind="stable")[:_TOP]
            yield number, {"top": best.tolist(), "probability": float(probabilities[best[0]])}


def figures(answers: Sequence[Mapping[str, Any]], videos: LabelledVideos, places: Sequence[int]) -> dict[str, Any]:
    """Shares of right answers, over videos, over classes, and over frequent, middling and rare classes.

    Args:
      answers: of the videos that could be read, `top` being the model's classes, best first.
      places: of each of the data set's classes its place among the model's.
    """
    labels = np.array([videos.labels[answer["video"]] for answer in answers])
    wanted = np.asarray(places)[labels]
    top = [answer["top"] for answer in answers]
    right = np.array([best[0] == label for best, label in zip(top, wanted, strict=True)])
    among = np.array([label in best for best, label in zip(top, wanted, strict=True)])
    shares = by_class(right, labels, len(videos.classes))
    return {
        "videos": len(answers),
        "unreadable": len(videos) - len(answers),
        "top1": float(right.mean()),
        "top5": float(among.mean()),
        "top1_by_class": float(np.nanmean(shares)),
        **{f"top1_{name}": share for name, share in head_middle_tail(shares, videos.counts()).items()},
        "classes": {
            name: float(share) for name, share in zip(videos.classes, shares, strict=True) if not np.isnan(share)
        },
    }


def _verify(card: ModelCard, results: Mapping[str, Any]) -> None:
    """Says so if the card's figures came out; shares of 1 may have been published in per cent.

    Raises:
      UserError: one did not.
    """
    assert card.verification is not None
    # Errors have units of all sizes, shares have not.
    relative = card.verification.get("relative_tolerance", 0.0)
    tolerance = card.verification.get("tolerance", 0.0)
    most = f"{100 * relative:g}%" if relative else tolerance
    published = {
        name: card.metrics[f"published_{name}"] / 100 for name in results if f"published_{name}" in card.metrics
    }
    for name, expected in (published | card.metrics).items():
        if name not in results:
            continue
        both = f"{name} of {card.name} is {results[name]:.4f} and its card says {expected:.4f}"
        if not math.isclose(results[name], expected, rel_tol=relative, abs_tol=tolerance):
            raise UserError(f"{both}, more than {most} apart; the card's protocol says how it was measured")
        print(f"verified: {both}, no more than {most} apart", file=sys.stderr)


def _draw(
    answers: Sequence[Mapping[str, Any]],
    videos: LabelledVideos,
    places: Sequence[int],
    names: Sequence[str],
    path: Path,
) -> None:
    """The confusion between the classes with the most mistakes."""
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    labels = np.array([places[videos.labels[answer["video"]]] for answer in answers])
    predicted = np.array([answer["top"][0] for answer in answers])
    wrong = np.bincount(np.concatenate([labels[labels != predicted], predicted[labels != predicted]]), minlength=1)
    shown = [int(number) for number in np.argsort(-wrong, kind="stable") if wrong[number]]
    shown = shown or sorted(set(labels))
    shown = sorted(shown[:_CONFUSED])
    of_shown = np.isin(labels, shown) & np.isin(predicted, shown)
    table = np.zeros((len(shown),) * 2, int)
    if of_shown.any():
        table = confusion_matrix(labels[of_shown], predicted[of_shown], labels=shown)
    side = 3 + 0.35 * len(shown)
    figure = Figure(figsize=(side + 2, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="viridis")
    ticks = [names[number] for number in shown]
    axes.set_xticks(range(len(shown)), ticks, rotation=90)
    axes.set_yticks(range(len(shown)), ticks)
    for row, column in zip(*np.nonzero(table), strict=True):
        colour = "black" if table[row, column] > table.max() / 2 else "white"
        axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    partial = _partial(path)
    figure.savefig(partial, dpi=100)
    partial.replace(path)


def _print(arguments: Arguments, results: Mapping[str, Any], out: Path) -> None:
    print(f"{arguments.model} on {results['snapshot']}")
    table = Table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in results.items():
        if isinstance(value, int | float):
            table.add_row(name, str(value) if isinstance(value, int) else f"{value:.4f}")
    Console().print(table)
    print(f"{results['protocol']}\nwrote {out}")


def _write(path: Path, text: str) -> None:
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _partial(path: Path) -> Path:
    """Where a file is written first: its own name for each process, as two may finish at once."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")


if __name__ == "__main__":
    command_line.run("zoo evaluate", main)
