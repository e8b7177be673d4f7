"""`zoo detect` and its predictor around a stand-in for the network: video, tables, tracks, bad input, interruption."""

import csv
import dataclasses
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tests import red_things
from tests.clips import write_clip, write_sound
from zoo import detect, detector, predictor
from zoo.data.decode import open_video
from zoo.errors import UserError


class StandingFinder:
    """Stands in for a pose model: a person's nose is in the middle of its box, the rest unseen."""

    labels = ("nose", *(f"joint {index}" for index in range(16)))

    def of_boxes(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        joints = np.zeros((len(boxes), 17, 3), np.float32)
        joints[:, 0, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
        joints[:, 0, 2] = 0.9
        return joints


@pytest.fixture(autouse=True)
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> detector.Detector:
    made = red_things.finder(monkeypatch)
    loaded = {"centernet_coco": made, "movenet_lightning": StandingFinder()}
    monkeypatch.setattr(predictor, "load", loaded.__getitem__)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "film.mkv", red_things.walk(8), fps=10, codec="ffv1")


def test_arrays(finder: detector.Detector, film: Path):
    found = finder.detect(film)
    np.testing.assert_array_equal(found.frames, np.arange(8))
    np.testing.assert_allclose(found.times, np.arange(8) / 10, atol=2e-3)
    np.testing.assert_allclose(found.boxes[3], [10, 16, 18, 32], atol=0.5)
    np.testing.assert_allclose(found.scores, red_things.SCORE)
    assert set(found.tracks.tolist()) == {1}
    assert finder.calls == [(3, 512, 512, 3)] * 3, "all calls have one shape"
    of_array = finder.detect(red_things.walk(8))
    np.testing.assert_allclose(of_array.boxes, found.boxes)
    np.testing.assert_allclose(of_array.times, np.arange(8) / 25)


def test_tiles_find_the_same_things(finder: detector.Detector):
    finder.preprocess = dataclasses.replace(finder.preprocess, tiles=3)
    found = finder.detect(red_things.walk(3))
    assert len(found) == 3
    np.testing.assert_allclose(found.boxes[2], [8, 16, 16, 32], atol=0.5)


def test_video_and_tables(film: Path, capsys: pytest.CaptureFixture[str]):
    detect.main([str(film), "--out", "out.mp4", "--json", "out.json", "--csv", "out.csv"])
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (told["frames"], told["frame_rate"], told["height"], told["width"]) == (8, 10.0, 48, 64)
    assert [each["frame"] for each in told["objects"]] == list(range(8))
    assert told["objects"][7] | {"box": []} == {
        "frame": 7,
        "time": 0.7,
        "label": "person",
        "score": red_things.SCORE,
        "box": [],
        "track": 1,
    }
    rows = list(csv.DictReader(Path("out.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 8
    assert rows[2]["label"] == "person"
    assert float(rows[2]["left"]) == pytest.approx(8, abs=0.5)
    with open_video("out.mp4") as reader:
        frames = list(reader.frames())
    np.testing.assert_allclose([seconds for seconds, _ in frames], np.arange(8) / 10, atol=2e-3)
    assert np.abs(frames[0][1].astype(int) - red_things.walk(1)[0]).max() > 50, "something is drawn"
    assert "8 frames" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["film.mkv", "out.csv", "out.json", "out.mp4"]


def test_pose(film: Path):
    detect.main([str(film), "--json", "out.json", "--csv", "out.csv", "--pose"])
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert told["joints"][0] == "nose"
    assert len(told["objects"][0]["joints"]) == 17
    np.testing.assert_allclose(told["objects"][0]["joints"][0], [8, 24, 0.9], atol=0.5)
    (row, *_) = csv.DictReader(Path("out.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["nose_x"]) == pytest.approx(8, abs=0.5)


def test_labels_are_chosen(film: Path):
    detect.main([str(film), "--json", "out.json", "--labels", "car, dog"])
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["objects"] == []


@pytest.mark.parametrize("shape", [(3, 48, 64, 3), (1, 1, 1, 3), (1, 2160, 3840, 3)])
def test_no_people_tiny_and_4k_frames(shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]):
    write_clip("empty.mkv", np.full(shape, 90, np.uint8), codec="ffv1")
    detect.main(["empty.mkv", "--out", "out.mp4", "--json", "out.json", "--csv", "out.csv"])
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["objects"] == []
    assert Path("out.csv").read_text(encoding="utf-8").count("\n") == 1
    with open_video("out.mp4") as reader:
        assert len(list(reader.frames())) == shape[0]
    assert "nothing found" in capsys.readouterr().err


def test_variable_rate_and_size(film: Path):
    """Times are kept; frames of another size come in the first one's, as the decoder gives them."""
    times = [0.0, 0.1, 0.5, 0.55, 2.0]
    write_clip("uneven.mkv", red_things.walk(5), times=times, codec="ffv1")
    detect.main(["uneven.mkv", "--out", "out.mkv", "--json", "out.json"])
    told = json.loads(Path("out.json").read_text(encoding="utf-8"))["objects"]
    np.testing.assert_allclose([each["time"] for each in told], times, atol=2e-3)
    with open_video("out.mkv") as reader:
        np.testing.assert_allclose([seconds for seconds, _ in reader.frames()], times, atol=2e-3)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_leaves_what_was_found(film: Path, finder: detector.Detector, stop, monkeypatch):
    whole = finder.follow

    def interrupted(*arguments):
        for index, found in enumerate(whole(*arguments)):
            if index == 5:
                if stop is SystemExit:
                    os.kill(os.getpid(), signal.SIGTERM)
                raise stop
            yield found

    monkeypatch.setattr(finder, "follow", interrupted)
    with pytest.raises(stop) as leaving:
        detect.main([str(film), "--out", "out.mp4", "--json", "out.json", "--csv", "out.csv"])
    if stop is SystemExit:
        assert leaving.value.code == 143
    with open_video("out.mp4") as reader:
        assert len(list(reader.frames())) == 5
    assert len(json.loads(Path("out.json").read_text(encoding="utf-8"))["objects"]) == 5
    assert Path("out.csv").read_text(encoding="utf-8").count("\n") == 6
    assert not list(Path().glob(".*partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film.mkv"], "nothing would be written; give --out"),
        (["film.mkv", "--out", "out.avi"], ".avi is no format that is written here"),
        (["film.mkv", "--out", "out.xyz"], ".xyz is no format that is written here"),
        (["film.mkv", "--out", "no/out.mp4"], "there is no folder"),
        (["film.mkv", "--json", "no/out.json"], "there is no folder"),
        (["film.mkv", "--out", "film.mkv"], "film.mkv would be written over what is read"),
        (["film.mkv", "--json", "a", "--csv", "./a"], "a is to be written twice"),
        (["film.mkv", "--json", "a.json", "--threshold", "0"], "--threshold 0.0 is no score"),
        (["film.mkv", "--json", "a.json", "--tiles", "0"], "--tiles 0 is not possible"),
        (
            ["film.mkv", "--json", "a.json", "--labels", "persn"],
            "no label of centernet_coco is called 'persn'; did you",
        ),
        (["film.mkv", "--json", "a.json", "--model", "transnetv2"], "transnetv2 is made for shot boundaries"),
        (["no.mkv", "--json", "a.json"], "there is no file 'no.mkv'"),
        (["sound.mkv", "--json", "a.json"], "no video stream"),
    ],
)
def test_mistakes(film: Path, arguments: list[str], message: str):
    write_sound("sound.mkv")
    with pytest.raises(UserError, match=re.escape(message)):
        detect.main(arguments)
    assert not Path("a.json").exists()
