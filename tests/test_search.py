"""`zoo search query`: by a clip, by a picture and by words; what is told, drawn and cut out; and mistakes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import colourists
from tests.clips import write_clip
from tests.colourists import BLUE, GREEN, RED, SAID, film
from zoo import search
from zoo.data.decode import open_video
from zoo.data.sound import open_sound
from zoo.errors import UserError

RED_AND_GREEN, LOUD = "red & green's.mkv", "sub/loud\n映画.mp4"


@pytest.fixture(autouse=True)
def indexed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Two films, one of them with sound and an odd name."""
    colourists.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    film(Path("videos") / RED_AND_GREEN, RED, GREEN)
    film(Path("videos") / LOUD, BLUE, RED, seed=1, codec="libx264", audio=1.0, codec_options={"crf": "5"})
    search.main(["index", "videos", "--db", "db"])


def query(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    capsys.readouterr()
    search.main(["query", "--db", "db", "--json", *arguments])
    return json.loads(capsys.readouterr().out)


def test_a_clip_finds_its_copies_first(capsys):
    """Reduced, re-encoded and slowed down to half its pace."""
    with open_video(Path("videos") / RED_AND_GREEN) as reader:
        frames = [frame[::2, ::2] for _, frame in reader.frames()]
    write_clip("copy.mp4", np.stack(frames).repeat(2, axis=0), fps=20, codec_options={"crf": "5"})
    found = query(capsys, "--video", "copy.mp4")
    assert len(found) == 4
    assert {(hit["file"], hit["start"]) for hit in found[:2]} == {(RED_AND_GREEN, 0.0), (RED_AND_GREEN, 0.5)}
    assert found[1]["score"] > 0.99 > found[2]["score"]
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)


def test_a_picture_finds_its_frame(capsys):
    with open_video(Path("videos") / LOUD) as reader:
        Image.fromarray(reader.frames_at([0.2])[0]).save("frame.png")
    found = query(capsys, "--image", "frame.png", "--top", "2")
    assert (found[0]["file"], found[0]["start"]) == (LOUD, 0.0)
    assert found[0]["score"] > 0.99
    assert len(found) == 2


def test_words_find_labels_objects_and_speech(capsys):
    assert query(capsys, "--text", "abseiling")[0]["labels"][0]["label"] == "abseiling"
    found = query(capsys, "--text", "fox")
    assert found[0]["file"] == LOUD
    assert " ".join(hit["words"] for hit in sorted(found, key=lambda hit: hit["start"]) if hit["words"]) == SAID
    (only,) = query(capsys, "--text", "opening bottle", "--file", "sub/*", "--after", "0.6")
    assert (only["file"], only["labels"][0]["label"]) == (LOUD, "opening bottle")
    assert query(capsys, "--text", "opening bottle", "--label", "person") == []
    assert query(capsys, "--text", "opening bottle", "--before", "-1") == []


def test_it_is_told_drawn_and_cut_out(capsys):
    search.main(["query", "--db", "db", "--text", "opening bottle", "--sheet", "sheet.png", "--export", "out/cuts"])
    told = capsys.readouterr()
    assert "0:00.5" in told.out
    assert "loud\\n映画.mp4" in re.sub(r"\s", "", told.out)
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape[2] == 3
    for channel in range(3):  # red, green and blue segments are on it
        others = np.delete(sheet, channel, axis=2).max(axis=2).astype(int)
        assert (sheet[..., channel] > others + 60).sum() > 2000
    cuts = sorted(Path("out/cuts").iterdir())
    assert [path.suffix for path in cuts] == [".mp4"] * 4
    for path in cuts:
        start, end = map(float, path.stem.rsplit("-", 2)[1:])
        with open_video(path) as reader:
            assert reader.duration == pytest.approx(end - start, abs=0.06)
            middle = reader.frames_at([0.2])[0].mean(axis=(0, 1))
        source = Path("videos") / (LOUD if "loud" in path.name else RED_AND_GREEN)
        with open_video(source) as reader:
            np.testing.assert_allclose(middle, reader.frames_at([start + 0.2])[0].mean(axis=(0, 1)), atol=4)
        if "loud" in path.name:
            with open_sound(path) as sound:
                assert sum(map(len, sound.samples())) / 16_000 == pytest.approx(end - start, abs=0.15)
    search.main(["query", "--db", "db", "--text", "x", "--file", "none", "--sheet", "none.png"])
    assert "nothing found" in capsys.readouterr().err
    assert not Path("none.png").exists()


def test_what_is_gone_since_is_left_out_of_what_is_cut_out():
    (Path("videos") / LOUD).unlink()
    with pytest.warns(UserWarning, match="left out sub/loud.*, which is not as it was indexed: there is no file"):
        search.main(["query", "--db", "db", "--text", "opening bottle", "--export", "cuts"])
    assert len(list(Path("cuts").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--video, --image and --text says what to look for, and none of them is given"),
        (["--text", "a", "--image", "b.png"], "and --image and --text is given"),
        (["--text", " ?! "], "has no word in it"),
        (["--text", "a", "--top", "0"], "--top 0 asks for no segment"),
        (["--text", "a", "--top", "9" * 30], "give 1000000 at most"),
        (["--text", "a", "--after", "nan"], "--after nan is no time"),
        (["--text", "a", "--label", "opening botle"], "did you mean opening bottle"),
        (
            ["--text", "a", "--label", "' OR 1=1"],
            "those of i3d_kinetics400, efficientnet_lite0_imagenet and centernet_coco",
        ),
        (["--text", "a", "--sheet", "sheet.jpg"], "sheet.jpg is not named as"),
        (["--text", "a", "--export", "videos/" + RED_AND_GREEN], "is no folder"),
        (["--video", "no.mp4"], "there is no file 'no.mp4'"),
        (["--image", "db/index.json"], "is not a video in a format that is read here"),
    ],
)
def test_mistakes(arguments: list[str], message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        search.main(["query", "--db", "db", *arguments])
    with pytest.raises(UserError, match="holds no index of videos"):
        search.main(["query", "--db", "videos", "--text", "a"])
