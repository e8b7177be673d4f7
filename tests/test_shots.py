"""`zoo shots`: lists in every format, contact sheet, tags and mistakes, around a stand-in for the network."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import brightness
from tests.clips import write_clip, write_sound
from zoo import contact_sheet, predictor, shot_tags, shots
from zoo.data.decode import open_video
from zoo.data.transforms import Preprocessing
from zoo.errors import UserError
from zoo.shot_detector import Shot
from zoo.shot_list import ShotList

COLOURS = ((200, 0, 0), (0, 100, 0), (0, 0, 200))


class Colourist:
    """Stands in for a classifier: the share of red, green and blue in the middle of what it is shown."""

    labels = ("red", "green", "blue")

    def __init__(self, num_frames: int = 4, frame_rate: float = 10.0):
        self.seen: list[np.ndarray] = []
        self.preprocess = Preprocessing(num_frames, frame_rate, 2, 8, 8, "bilinear", 0.0, 1.0)

    def probabilities(self, clips: np.ndarray) -> np.ndarray:
        self.seen.append(clips)
        means = clips.mean(axis=(0, 1, 2, 3)).astype(np.float64)
        return means / means.sum()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three shots of ten frames, each ending with a white one; the last one ends with the film."""
    frames = np.zeros((30, 18, 32, 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        frames[index * 10 : index * 10 + 10] = colour
    frames[[9, 19]] = 255
    return write_clip(tmp_path / "film.mkv", frames, fps=10, codec="ffv1")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    detector = brightness.detector(monkeypatch)
    loaded = {"transnetv2": detector} | dict.fromkeys(shot_tags.MODELS.values(), Colourist())
    monkeypatch.setattr(predictor, "load", loaded.__getitem__)
    monkeypatch.chdir(tmp_path)


def test_json_on_stdout_and_a_sheet(film: Path, capsys: pytest.CaptureFixture[str]):
    shots.main([str(film)])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["frames"], told["frame_rate"], told["duration"]) == (30, 10.0, 3.0)
    assert [(shot["number"], shot["first_frame"], shot["last_frame"]) for shot in told["shots"]] == [
        (1, 0, 9),
        (2, 10, 19),
        (3, 20, 29),
    ]
    assert [shot["boundary"] for shot in told["shots"]] == [1.0, 1.0, None]
    assert "3 shots; wrote film-shots.png" in err
    sheet = np.asarray(Image.open("film-shots.png"))
    for colour in COLOURS:  # the middle picture of every shot is on it
        assert (sheet == colour).all(axis=-1).sum() > 5000
    shots.main([str(film)])
    assert Path("film-shots-2.png").exists(), "nobody's picture is replaced unasked"


def test_csv_with_tags(film: Path):
    shots.main([str(film), "--out", "list.csv", "--sheet", "sheet.png", "--tags", "--top", "2"])
    rows = list(csv.DictReader(io.StringIO(Path("list.csv").read_text(encoding="utf-8"))))
    assert [row["kinetics"] for row in rows] == ["red", "green", "blue"]
    assert [row["start"] for row in rows] == ["0.000", "1.000", "2.000"]
    assert rows[2]["boundary"] == ""
    assert 0.5 < float(rows[0]["imagenet_probability"]) < 1
    assert not list(Path().glob(".*partial*"))


def test_json_with_tags(film: Path, capsys: pytest.CaptureFixture[str]):
    shots.main([str(film), "--sheet", "sheet.png", "--tags", "--top", "2"])
    told = json.loads(capsys.readouterr().out)["shots"]
    assert told[1]["imagenet"][0]["label"] == "green"
    assert len(told[1]["kinetics"]) == 2


def test_tags_see_their_shot_alone(film: Path):
    seen = Colourist(num_frames=1)
    with open_video(film) as reader:
        shot_tags.tag(reader, [Shot(10, 18, 1.0, 1.9, None)], {"colours": seen})
    assert len(seen.seen[0]) == 2, "as many clips as the card allows"
    np.testing.assert_allclose(seen.seen[0].mean(axis=(0, 1, 2, 3)), COLOURS[1])


def test_edl(film: Path):
    shots.main([str(film), "--out", "list.edl", "--sheet", "sheet.png"])
    lines = Path("list.edl").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["TITLE: film", "FCM: NON-DROP FRAME"]
    events = [line.split() for line in lines if re.match(r"\d{3} ", line)]
    assert [event[4:6] for event in events] == [
        ["00:00:00:00", "00:00:01:00"],
        ["00:00:01:00", "00:00:02:00"],
        ["00:00:02:00", "00:00:03:00"],
    ]
    assert all(event[4:6] == event[6:8] for event in events)


def test_timecodes_of_a_long_film_at_29_97():
    made = ShotList("a/film.mp4", "m", 30000 / 1001, 200_000, 6673.0, [Shot(107_892, 107_921, 3600.0, 3601.0, None)])
    assert "00:59:56:12 00:59:57:12 00:59:56:12 00:59:57:12" in made.to_edl()


def test_a_sheet_of_many_shots_of_a_tall_film(tmp_path: Path):
    path = write_clip(tmp_path / "tall.mkv", np.zeros((2, 64, 8, 3), np.uint8), codec="ffv1")
    with open_video(path) as reader:
        sheet = contact_sheet.draw(reader, [Shot(0, 0, 0.0, 0.04, 0.9)] * 500)
    assert max(sheet.shape) < 20_000
    assert sheet.shape[2] == 3


def test_an_upright_picture_does_not_part_the_others_from_their_texts():
    wide, upright = np.full((9, 16, 3), 200, np.uint8), np.full((16, 9, 3), 100, np.uint8)
    sheets = [contact_sheet.arrange([wide, wide, other], [["text"]] * 3) for other in (wide, upright)]
    assert sheets[0].shape == sheets[1].shape
    rows, columns = np.nonzero(sheets[1].max(axis=2) == 100)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(16 / 9, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film.mkv", "--threshold", "1.5"], "--threshold 1.5 is no probability"),
        (["film.mkv", "--top", "0"], "--top 0 asks for no label"),
        (["film.mkv", "--model", "i3d_kinetics400"], "i3d_kinetics400 is made for classification"),
        (["film.mkv", "--out", "list.xml"], "the format 'xml' is not known"),
        (["film.mkv", "--format", "xml"], "the format 'xml' is not known"),
        (["film.mkv", "--sheet", "sheet.jpg"], "sheet.jpg is not named as"),
        (["film.mkv", "--out", "no/such/list.csv"], "there is no folder"),
        (["film.mkv", "--out", "a.png", "--format", "csv", "--sheet", "a.png"], "a.png is to be written twice"),
        (["no.mkv"], "there is no file 'no.mkv'"),
        (["sound.mkv"], "no video stream"),
    ],
)
def test_mistakes(film: Path, arguments: list[str], message: str):
    write_sound("sound.mkv")
    with pytest.raises(UserError, match=re.escape(message)):
        shots.main(arguments)
