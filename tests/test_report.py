"""`zoo report`: the page says what is in the video, stands alone, and works by mouse, by keyboard and by name."""

import os
import re
from pathlib import Path

import pytest

from tests import chromium, colourists
from tests.clips import write_sound
from tests.colourists import BLUE, GREEN, LABELS, RED, film
from zoo import report
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    colourists.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def page() -> str:
    film(Path('<b>"film" & co.mp4'), RED, GREEN, BLUE, codec="libx264", audio=1.5)
    report.main(['<b>"film" & co.mp4', "--out", "page.html"])
    return Path("page.html").read_text(encoding="utf-8")


def test_the_page_stands_alone_and_says_what_is_there(page: str):
    assert "<title>&lt;b&gt;&#34;film&#34; &amp; co.mp4: what is in it</title>" in page
    assert "<b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for label in LABELS:
        assert f"{label} 0." in page
        assert f'<th scope="row">{label}</th>' in page
    assert "<blockquote>the quick" in page
    assert "64x48, 20 frames a second, 3 shots" in page
    for name in ("transnetv2", "i3d_kinetics400", "centernet_coco", "whisper_tiny_en"):
        assert f"<summary>{name} (" in page
    assert sorted(path.suffix for path in Path().iterdir()) == [".html", ".mp4"]


def test_a_silent_video_without_objects(capsys):
    film(Path("film.mkv"), (40, 0, 0))
    report.main(["film.mkv"])
    report.main(["film.mkv"])
    page = Path("film-report-2.html").read_text(encoding="utf-8")
    assert "None that centernet_coco knows." not in page.partition("<h2>Objects")[0]
    assert "Nothing, as far as can be heard." in page
    assert "whisper_tiny_en" not in page
    assert "1 shots; wrote film-report-2.html" in capsys.readouterr().err


def test_names_that_are_no_text_or_too_long(monkeypatch):
    """The page is not lost at the end, and a name that nothing can be written to is told at the beginning."""
    film(Path("film.mkv"), RED)
    os.rename("film.mkv", b"\xff.mkv")
    report.main([os.fsdecode(b"\xff.mkv"), "--out", "page.html"])
    assert "<h1>\\udcff.mkv</h1>" in Path("page.html").read_text(encoding="utf-8")
    monkeypatch.setattr(report, "_analyse", None)
    os.rename(b"\xff.mkv", "n" * 250 + ".mkv")
    for out in ([], ["--out", "n" * 250 + ".html"], ["--out", "n" * 245 + ".html"]):
        with pytest.raises(UserError, match=r"cannot write n*(-report)?\.html: File name too long"):
            report.main(["n" * 250 + ".mkv", *out])


def test_a_label_is_told_by_the_first_of_its_names(monkeypatch):
    monkeypatch.setattr(colourists.Classifier, "labels", ("soap, cleaner", "crate", "chest"))
    film(Path("film.mkv"), RED)
    report.main(["film.mkv", "--out", "page.html"])
    page = Path("page.html").read_text(encoding="utf-8")
    assert "In a frame: soap 0." in page
    assert "cleaner 0." not in page


@chromium.wanted
@pytest.mark.slow
def test_a_shot_is_clicked_and_the_player_jumps(page: str):
    with chromium.page(Path("page.html").absolute().as_uri()) as opened:
        assert chromium.position(opened) == 0
        assert opened.evaluate("document.querySelector('video').duration") == pytest.approx(1.5, abs=0.1)
        opened.get_by_role("button", name="Shot 3, 0:01.0 to 0:01.5").click()
        assert chromium.position(opened) == pytest.approx(1.0, abs=0.01)
        colour = opened.evaluate(
            "() => { const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;"
            "const pen = canvas.getContext('2d'); pen.drawImage(document.querySelector('video'), 0, 0, 1, 1);"
            "return [...pen.getImageData(0, 0, 1, 1).data]; }"
        )
        assert max(colour[:3]) == colour[2], "it shows the blue shot"
        assert opened.get_by_role("status").inner_text() == "The player is at 0:01.0."
        opened.wait_for_selector("button[aria-current=true][aria-label^='Shot 3']")

        # On a telephone nothing stands out at the side, and the player stays where one sees it.
        opened.set_viewport_size({"width": 360, "height": 640})
        assert opened.evaluate("document.documentElement.scrollWidth") == 360
        opened.get_by_role("button", name="The picture in the middle 0:01.0 to 0:01.5").click()
        assert chromium.is_in_sight(opened, "video")

        # By keyboard alone: the first stop skips to the shots, the next ones are the shots themselves.
        opened.reload()
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.textContent") == "Skip to the shots"
        opened.keyboard.press("Enter")
        opened.keyboard.press("Tab")
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.getAttribute('aria-label')") == "Shot 2, 0:00.5 to 0:01.0"
        opened.keyboard.press("Enter")
        assert chromium.position(opened) == pytest.approx(0.5, abs=0.01)

        # What a screen reader reads: a name for every control, headings in order, a picture's text.
        tree = opened.locator("body").aria_snapshot()
        assert [line for line in tree.splitlines() if re.fullmatch(r"\s*- (button|img|link|table|video):?", line)] == []
        levels = re.findall(r"heading .* \[level=(\d)\]", tree)
        assert levels == ["1", *"22222"]
        assert opened.evaluate("document.documentElement.lang") == "en"
        assert opened.evaluate("[...document.images].every(picture => picture.complete && picture.naturalWidth > 0)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film.mkv", "--model", "centernet_coco"], "is made for detection"),
        (["film.mkv", "--out", "page.pdf"], "page.pdf is not named as; give --out NAME.html"),
        (["film.mkv", "--out", "no/page.html"], "there is no folder"),
        (["no.mkv"], "there is no file 'no.mkv'"),
        (["sound.mkv"], "no video stream"),
    ],
)
def test_mistakes(arguments: list[str], message: str):
    film(Path("film.mkv"), RED)
    write_sound("sound.mkv")
    with pytest.raises(UserError, match=re.escape(message)):
        report.main(arguments)
    assert not list(Path().glob("*.html"))
