"""`zoo evaluate`: figures recomputed by hand, stopped and gone on with, and videos that cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

import zoo
from tests import tiny
from tests.clips import write_clip
from zoo import evaluate
from zoo.data.labelled_videos import LabelledVideos
from zoo.errors import UserError
from zoo.metrics.classification import by_class, head_middle_tail


@pytest.fixture
def videos(tmp_path, cards, monkeypatch) -> Path:
    """Clips of noise in the folders red, green and blue, and a model for these."""
    monkeypatch.chdir(tmp_path)
    tiny.publish_checkpoint(cards)
    rng = np.random.default_rng(0)
    for label in tiny.LABELS:
        for number in range(4):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            frames = rng.integers(0, 256, (6, 12, 20, 3), np.uint8)
            write_clip(tmp_path / "clips" / label / f"{number}.mkv", frames, fps=10, codec="ffv1")
    return tmp_path / "clips"


def run(*arguments: str) -> None:
    evaluate.main(["--model", "tiny_colours", "--split", "all", *arguments])


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def expected(folder: Path, num_clips: int, num_crops: int) -> np.ndarray:
    """Probabilities by the plain model: every view alone, then the mean."""
    predictor = zoo.load("tiny_colours")
    rows = []
    for path in sorted(folder.rglob("*.mkv")):
        views = predictor.preprocess.sample(path, num_clips, num_crops)
        x = (views.reshape(-1, *views.shape[2:]).astype(np.float32) - 127.5) / 127.5
        logits = np.array([predictor.model(view[None])[0] for view in x], np.float64)
        rows.append((np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0))
    return np.array(rows)


def test_figures_are_those_of_scikit_learn(videos, tmp_path, capsys):
    run("--dataset", f"folder:{videos}", "--clips", "2", "--crops", "3", "--out", "out")
    found = results(tmp_path / "out")
    probabilities = expected(videos, 2, 3)
    labels = [tiny.LABELS.index(path.parent.name) for path in sorted(videos.rglob("*.mkv"))]
    assert found["top1"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=1, labels=range(3)))
    assert found["top1_by_class"] == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(-1)))
    assert (found["top5"], found["videos"], found["unreadable"]) == (1.0, 12, 0)
    assert set(found["classes"]) == set(tiny.LABELS)
    assert "2 clips x 3 crops of 4 frames at 10 a second, 8x8 out of a short side of 8" in found["protocol"]
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 1000
    assert "top1_by_class" in capsys.readouterr().out


def test_it_goes_on_where_it_was_stopped(videos, tmp_path, monkeypatch):
    run("--dataset", f"folder:{videos}", "--out", "out")
    whole, lines = results(tmp_path / "out"), (tmp_path / "out" / "answers.jsonl").read_text()
    (tmp_path / "out" / "answers.jsonl").write_text(lines[: len(lines) // 2])  # as kill -9 leaves it
    looked_at = []
    before = evaluate._looked_at

    def noted(arguments, videos, numbers):
        looked_at.extend(numbers)
        return before(arguments, videos, numbers)

    monkeypatch.setattr(evaluate, "_looked_at", noted)
    run("--dataset", f"folder:{videos}", "--out", "out")
    assert results(tmp_path / "out") == whole
    assert (tmp_path / "out" / "answers.jsonl").read_text() == lines
    assert 5 <= len(looked_at) <= 7
    with pytest.raises(UserError, match="out holds the evaluation of something else"):
        run("--dataset", f"folder:{videos}", "--clips", "3", "--out", "out")


def test_a_video_that_cannot_be_read_is_named_and_more_are_too_many(videos, tmp_path):
    (videos / "red" / "0.mkv").write_bytes(b"no video")
    run("--dataset", f"folder:{videos}", "--out", "out")
    assert (results(tmp_path / "out")["videos"], results(tmp_path / "out")["unreadable"]) == (11, 1)
    assert "0.mkv" in (tmp_path / "out" / "unreadable.txt").read_text()
    whole = (videos / "red" / "1.mkv").read_bytes()
    (videos / "red" / "1.mkv").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 12 videos cannot be read, more than 1%: out2/unreadable.txt names them"):
        run("--dataset", f"folder:{videos}", "--out", "out2")
    assert len((tmp_path / "out2" / "unreadable.txt").read_text().splitlines()) == 2
    (videos / "red" / "1.mkv").write_bytes(whole)  # mended, and looked at again
    run("--dataset", f"folder:{videos}", "--out", "out2")
    assert results(tmp_path / "out2") == results(tmp_path / "out")


def test_verify_compares_with_the_card_by_its_protocol(videos, tmp_path, cards, capsys):
    probabilities = expected(videos, 2, 3)
    labels = [tiny.LABELS.index(path.parent.name) for path in sorted(videos.rglob("*.mkv"))]
    top1 = top_k_accuracy_score(labels, probabilities, k=1, labels=range(3))
    protocol = {"clips": 2, "crops": 3, "tolerance": 0.001}
    same = ("--dataset", f"folder:{videos}", "--out", "out", "--verify")

    def published(**metrics: float) -> None:
        tiny.publish_checkpoint(cards, metrics=metrics, verification=protocol)

    published(published_top1=100 * top1 + 0.09, published_top5=100.0)
    run(*same)
    assert results(tmp_path / "out")["top1"] == pytest.approx(top1)
    assert "2 clips x 3 crops" in results(tmp_path / "out")["protocol"]
    assert "verified: top5 of tiny_colours is 1.0000" in capsys.readouterr().err
    published(top1=top1 + 0.01)
    with pytest.raises(UserError, match=r"top1 of tiny_colours is .* and its card says .*, more than 0\.001 apart"):
        run(*same)
    published(published_top1=100 * top1, published_top5=99.0)
    with pytest.raises(UserError, match=r"top5 of tiny_colours is 1\.0000 and its card says 0\.9900"):
        run(*same)
    with pytest.raises(UserError, match=r"on the card of tiny_colours are of 2 clips x 3 crops; leave out"):
        run(*same, "--clips", "1")
    tiny.publish_checkpoint(cards)
    with pytest.raises(UserError, match="the card of tiny_colours states no protocol and tolerance"):
        run(*same)


def test_pictures_in_folders_of_synsets_are_what_their_place_says(videos, tmp_path, cards):
    tiny.publish_checkpoint(cards, preprocessing=tiny.PREPROCESSING | {"num_frames": 1})
    right, rng = [], np.random.default_rng(1)
    for label, synset in enumerate(("n01440764", "n02119789", "n03000684")):
        place = tmp_path / "imagenet" / "val" / synset
        place.mkdir(parents=True)
        for number in range(3):
            colour = rng.integers(0, 256, 3)
            picture = np.full((9, 12, 3), colour, np.uint8)
            Image.fromarray(picture).save(place / f"ILSVRC2012_val_{number:08}.JPEG", quality=95)
            name, _ = zoo.load("tiny_colours")(picture[None])[0]
            right.append(name == tiny.LABELS[label])
    evaluate.main(["--model", "tiny_colours", "--dataset", "imagenet", "--data", "imagenet", "--out", "out"])
    found = results(tmp_path / "out")
    assert 0 < sum(right) < 9
    assert found["top1"] == pytest.approx(sum(right) / 9)
    assert "9 videos of folder imagenet" in found["snapshot"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "folder:clips", "--clips", "0"], "--clips 0 looks at nothing"),
        (["--dataset", "folder:clips", "--split", "tset"], "--split tset is not known"),
        (["--dataset", "folder:others"], "no label for 1 of 1 classes: purple"),
    ],
)
def test_mistakes(videos, tmp_path, arguments, message):
    (tmp_path / "others" / "purple").mkdir(parents=True)
    (tmp_path / "others" / "purple" / "1.mkv").write_bytes((videos / "red" / "1.mkv").read_bytes())
    with pytest.raises(UserError, match=message):
        run(*arguments)


def test_shares_of_classes_and_of_thirds():
    right, labels = np.array([True, False, True, True]), np.array([0, 0, 1, 3])
    shares = by_class(right, labels, 6)
    np.testing.assert_array_equal(shares, [0.5, 1, np.nan, 1, np.nan, np.nan])
    assert head_middle_tail(shares, [9, 1, 8, 3, 2, 0]) == {"head": 0.5, "middle": 1.0, "tail": 1.0}


def test_equal_counts_of_a_list_are_of_it_all():
    videos = LabelledVideos(("a", "b"), (Path("1"), Path("2"), Path("3")), (0, 1, 1), "three")
    answers = [{"video": 0, "top": [4, 2]}, {"video": 2, "top": [2, 4]}]
    found = evaluate.figures(answers, videos, [4, 2])
    assert (found["top1"], found["top5"], found["unreadable"]) == (1.0, 1.0, 1)
