"""Lists of labelled videos: published layouts, splits that never meet, and one clear line where there is disorder."""

import csv
from pathlib import Path

import pytest

from zoo.data.labelled_videos import as_labels, labelled_videos
from zoo.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_csv(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def names(videos) -> set[tuple[str, str]]:
    return {(path.name, videos.classes[label]) for path, label in zip(videos.paths, videos.labels, strict=True)}


def test_a_folder_with_splits(tmp_path):
    for part, label, name in [("train", "b", "1.mp4"), ("train", "a", "2.MKV"), ("val", "a", "3.avi")]:
        touch(tmp_path / part / label / name)
    touch(tmp_path / "train" / "a" / "notes.txt")
    train, test, both = (labelled_videos(f"folder:{tmp_path}", split) for split in ("train", "test", "all"))
    assert names(train) == {("1.mp4", "b"), ("2.MKV", "a")}
    assert names(test) == {("3.avi", "a")}
    assert names(both) == names(train) | names(test)
    assert train.classes == test.classes == ("a", "b")
    assert train.counts() == [1, 1]
    assert test.counts() == [1, 0]


def test_a_folder_without_splits_holds_a_fifth_out(tmp_path):
    for number in range(200):
        touch(tmp_path / f"class {number % 2}" / f"{number}.mp4")
    train, test, both = (labelled_videos(f"folder:{tmp_path}", split) for split in ("train", "test", "all"))
    assert set(train.paths) | set(test.paths) == set(both.paths)
    assert not set(train.paths) & set(test.paths)
    assert 20 <= len(test) <= 60
    again = labelled_videos(f"folder:{tmp_path}", "test")
    assert again == test
    assert test.snapshot != train.snapshot


KINETICS = [
    ("label", "youtube_id", "time_start", "time_end", "split"),
    ("air drumming", "aaa-bbb_ccc", "3", "13", "validate"),
    ("yoga", "ddd", "100", "110", "validate"),
    ("zumba", "gone", "0", "10", "validate"),
]


@pytest.mark.parametrize("place", ["{split}/{label}", "{split}/{label_}", "{split}"])
@pytest.mark.parametrize(("listed", "split"), [("validate.csv", "val"), ("annotations/val.csv", "validate")])
def test_kinetics_as_published(tmp_path, place, listed, split):
    write_csv(tmp_path / listed, *KINETICS)
    for label, name in [("air drumming", "aaa-bbb_ccc_000003_000013.mp4"), ("yoga", "ddd_000100_000110.mp4")]:
        touch(tmp_path / place.format(split=split, label=label, label_=label.replace(" ", "_")) / name)
    with pytest.warns(UserWarning, match="1 of 3 videos that .* lists are not in"):
        videos = labelled_videos("kinetics400", "test", tmp_path)
    assert names(videos) == {("aaa-bbb_ccc_000003_000013.mp4", "air drumming"), ("ddd_000100_000110.mp4", "yoga")}
    assert videos.classes == ("air drumming", "yoga", "zumba")
    assert "of 3 listed" in videos.snapshot


def test_a_csv_file(tmp_path):
    touch(tmp_path / "clips" / "1.mp4")
    touch(tmp_path / "clips" / "2.mp4")
    rows = [("path", "label", "split"), ("clips/1.mp4", "a", "train"), ("clips/2.mp4", "b", "val")]
    file = write_csv(tmp_path / "list.csv", *rows)
    assert names(labelled_videos(f"csv:{file}", "test")) == {("2.mp4", "b")}
    assert names(labelled_videos(f"csv:{file}", "all")) == {("1.mp4", "a"), ("2.mp4", "b")}


def test_what_is_in_disorder_is_told(tmp_path):
    def told(name: str, message: str, split: str = "train", data: Path | None = None):
        with pytest.raises(UserError, match=message):
            labelled_videos(name, split, data)

    told("kinetics800", "did you mean kinetics")
    told("kinetics400", "say where kinetics400 lies with --data DIR")
    told("kinetics400", "has no folder train or training", data=tmp_path)
    told(f"folder:{tmp_path}/nowhere", "there is no folder")
    told(f"folder:{tmp_path}", "has no class folders")
    touch(tmp_path / "full" / "1.mp4")
    (tmp_path / "empty").mkdir()
    told(f"folder:{tmp_path}", "the class folder .*empty has no videos")
    file = write_csv(tmp_path / "x.csv", ("path", "label"), *((f"{number}.mp4", "a") for number in range(8)))
    told(f"csv:{file}", "8 of 8 videos of .*x.csv are missing: .*0.mp4, .* and 3 more")
    told(f"csv:{write_csv(tmp_path / 'y.csv', ('file', 'label'))}", "has no column path; its first line names file")
    told(f"csv:{tmp_path / 'z.csv'}", "cannot read")


def test_classes_are_found_among_a_models_labels():
    assert as_labels(["Air_drumming", "yoga"], ["yoga", "x", "air drumming"]) == [2, 0]
    with pytest.raises(UserError, match="no label for 2 of 3 classes: knitting, reading"):
        as_labels(["yoga", "knitting", "reading"], ["yoga"])


def test_imagenet_as_published(tmp_path):
    for part, synset, name in [
        ("train", "n02119789", "n02119789_1.JPEG"),
        ("train", "n01440764", "n01440764_18.JPEG"),
        ("val", "n01440764", "ILSVRC2012_val_00000293.JPEG"),
    ]:
        touch(tmp_path / part / synset / name)
    touch(tmp_path / "val" / "n01440764" / "notes.mp4")
    videos = labelled_videos("imagenet", "test", tmp_path)
    assert names(videos) == {("ILSVRC2012_val_00000293.JPEG", "n01440764")}
    assert videos.classes == ("n01440764", "n02119789")
    assert as_labels(videos.classes, ["tench", "kit fox"]) == [0, 1]
    assert as_labels(["n02119789"], ["n01440764", "n02119789"]) == [1]
    with pytest.raises(UserError, match="folders of 2 synsets and the model has 3 classes"):
        as_labels(videos.classes, ["tench", "goldfish", "kit fox"])
    with pytest.raises(UserError, match="say where imagenet lies with --data DIR"):
        labelled_videos("imagenet", "test")
    (tmp_path / "val" / "n02119789").mkdir()
    with pytest.raises(UserError, match=r"the class folder .*n02119789 has no pictures"):
        labelled_videos("imagenet", "test", tmp_path)
