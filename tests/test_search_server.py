"""`zoo search serve`: it serves what is indexed and nothing else, and a page that finds and plays it."""

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from tests import chromium, colourists
from tests.colourists import BLUE, GREEN, RED, film
from zoo import search, search_server
from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.search_server import application
from zoo.segment_table import key_of
from zoo.video_index import VideoIndex, open_index

NAME = '"><script>alert(1)</script>.mp4'


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[int, VideoIndex]]:
    """The port, and the index that is served there."""
    colourists.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    film(Path("videos/plain.mp4"), RED, GREEN, codec="libx264", audio=1.0)
    film(Path("videos") / NAME, BLUE, seed=1, codec="libx264")
    Path("videos/secret.txt").write_text("not indexed")
    film(Path("videos/later.mp4"), BLUE, seed=2, codec="libx264")
    film(Path("outside.mp4"), BLUE, seed=3, codec="libx264")
    search.main(["index", "videos", "--db", "db"])
    Path("videos/later.mp4").unlink()
    index = open_index(Path("db"))
    server = uvicorn.Server(uvicorn.Config(application(index), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield server.servers[0].sockets[0].getsockname()[1], index
    server.should_exit = True
    thread.join()


def get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, answer.read()


def test_indexed_files_are_served_in_whole_and_in_part_and_no_others(served):
    port, _ = served
    whole = Path("videos/plain.mp4").read_bytes()
    place = f"/video/{key_of('plain.mp4')}"
    answer, body = get(port, place)
    assert (answer.status, answer.headers["Content-Type"], body) == (200, "video/mp4", whole)
    answer, body = get(port, place, Range="bytes=100-299")
    assert (answer.status, body) == (206, whole[100:300])
    assert answer.headers["Content-Range"] == f"bytes 100-299/{len(whole)}"
    answer, body = get(port, place, Range=f"bytes={len(whole)}-")
    assert answer.status == 416
    for path in (
        "/video/plain.mp4",
        "/video/../../outside.mp4",
        "/video/..%2F..%2Foutside.mp4",
        "/video/%2Fetc%2Fpasswd",
        f"/video/{key_of('secret.txt')}",
        f"/video/{key_of('../outside.mp4')}",
        f"/video/{key_of('later.mp4')}",
        f"/video/{'0' * 32}",
        f"/picture/{key_of('plain.mp4')}/9",
        f"/picture/{key_of('plain.mp4')}/99999999999999999999",
        f"/picture/{key_of('plain.mp4')}/-1",
        "/picture/' OR 1=1 --/0".replace(" ", "%20"),
        f"/?like={key_of('secret.txt')}/0",
        "/?like=nothing",
        f"/?like={key_of('plain.mp4')}/{'9' * 5000}",
        f"/picture/{key_of('plain.mp4')}/{'9' * 5000}",
        f"/clip/{key_of('plain.mp4')}/one",
        f"/clip/{key_of('plain.mp4')}/9",
        f"/clip/{key_of('later.mp4')}/0",
        "/static/style.css",
        "//etc/passwd",
    ):
        assert get(port, path)[0].status == 404, path
    answer, body = get(port, f"/clip/{key_of('plain.mp4')}/1")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "video/mp4")
    with open_video(body) as reader:
        assert reader.duration == pytest.approx(0.5, abs=0.06)
        assert reader.frames_at([0.2])[0].mean(axis=(0, 1)).argmax() == 1, "the green shot"
    answer, body = get(port, f"/picture/{key_of('plain.mp4')}/1")
    assert (answer.status, body[:2]) == (200, b"\xff\xd8")
    assert get(port, "/", Host="evil.example")[0].status == 400
    Path("videos/plain.mp4").write_text("no video any more")
    assert get(port, f"/clip/{key_of('plain.mp4')}/1")[0].status == 404


def test_the_page_finds(monkeypatch, served):
    port, index = served
    _, body = get(port, "/")
    assert f"{len(index)} segments of 3 videos can be found" in body.decode()
    _, body = get(port, "/?text=opening+bottle&file=plain*")
    assert "2 segments found" in body.decode()
    _, body = get(port, "/?label=abseiling&after=0.1")
    assert "4 segments found" in body.decode()
    assert "<script>alert" not in body.decode()
    assert "Nothing found" in get(port, "/?text=x&before=-5")[1].decode()
    _, body = get(port, f"/?like={key_of('plain.mp4')}/1")
    first = body.decode().partition("<ol")[2].partition("</button>")[0]
    assert f'data-source="/video/{key_of("plain.mp4")}"' in first
    assert 'data-start="0.5"' in first
    for words, told in [("?text=x&after=soon", "after &#39;soon&#39; is no time"), ("?label=nix", "no label of this")]:
        answer, body = get(port, "/" + words)
        assert answer.status == 400
        assert told in body.decode()
    assert get(port, "/?text=%3F!")[0].status == 200
    monkeypatch.setattr(search_server, "_COUNT", 2)
    assert "The first 2 segments found" in get(port, "/?text=bottle")[1].decode()


def test_it_listens_on_this_machine_alone_and_tells_a_taken_port(served, monkeypatch):
    port, _ = served
    with pytest.raises(UserError, match=f"port {port} cannot be used: Address already in use; give another"):
        search.main(["serve", "--db", "db", "--port", str(port)])
    with pytest.raises(UserError, match="--port 70000 is no port"):
        search.main(["serve", "--db", "db", "--port", "70000"])
    bound = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: bound.extend(each.getsockname()[0] for each in sockets)
    )
    search.main(["serve", "--db", "db", "--port", "0"])
    assert bound == ["127.0.0.1"]


@chromium.wanted
@pytest.mark.slow
def test_what_is_found_is_played(served):
    port, _ = served
    with chromium.page(f"http://127.0.0.1:{port}/") as opened:
        assert not opened.locator("video").is_visible(), "there is nothing to play yet"
        opened.set_viewport_size({"width": 360, "height": 640})
        assert opened.evaluate("document.documentElement.scrollWidth") == 360
        opened.get_by_label("Words").fill("wrapping present")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("h2:has-text('segments found')")
        opened.evaluate(
            "document.querySelector('video').play = () => Promise.resolve()"
        )  # where it stands can then be read
        opened.get_by_role("button", name="plain.mp4, 0:00.5 to 0:01.0").click()
        assert chromium.position(opened) == pytest.approx(0.5, abs=0.01)
        assert opened.evaluate("document.querySelector('video').error") is None
        assert chromium.is_in_sight(opened, "video")
        assert opened.get_by_role("status").inner_text() == "The player is at 0:00.5 of plain.mp4."
        assert opened.evaluate("[...document.images].every(picture => picture.naturalWidth > 0)")
        opened.get_by_role("link", name=f"More like {NAME} at 0:00.0").click()
        first = opened.locator("ol.cards button").first
        first.focus()
        opened.keyboard.press("Enter")
        assert opened.get_by_role("status").inner_text() == f"The player is at 0:00.0 of {NAME}."
        chromium.until(opened, "document.querySelector('video').currentTime > 0")


@chromium.wanted
@pytest.mark.slow
def test_what_the_browser_does_not_know_is_played_as_a_copy(monkeypatch, served):
    """MPEG-4 Part 2, which Chromium has no decoder for; the error that it tells of itself is no complaint."""
    port, _ = served
    film(Path("videos/old.mp4"), GREEN, RED, seed=5, codec="mpeg4")
    search.main(["index", "videos", "--db", "db"])
    with chromium.page(f"http://127.0.0.1:{port}/?file=old*") as opened:
        opened.get_by_role("button", name="old.mp4, 0:00.5 to 0:01.0").click()
        chromium.until(opened, "document.querySelector('video').src.includes('/clip/')")
        chromium.until(opened, "document.querySelector('video').currentTime > 0")
        assert opened.evaluate("document.querySelector('video').error") is None
        assert "a copy of the stretch at 0:00.5 of old.mp4" in opened.get_by_role("status").inner_text()
