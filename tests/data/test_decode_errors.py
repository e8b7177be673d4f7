"""Sources of every kind, and what is refused: always a UserError of one line that names the source and the way out."""

import http.server
import io
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import numbered, numbers, write_clip, write_sound
from zoo.data.decode import open_video
from zoo.errors import UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered(12), audio=0.5)


class _Pipe(io.RawIOBase):
    """Bytes that come once, as from a pipe."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(buffer)


@pytest.fixture
def server(clip, monkeypatch):
    """An http server's address; `.seen` are the paths that were asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        seen: list[str] = []  # noqa: RUF012

        def do_GET(self):
            self.seen.append(self.path)
            data = clip.read_bytes()
            if self.path == "/gone":
                return self.send_error(404)
            self.send_response(302 if self.path.startswith("/to/") else 200)
            if self.path.startswith("/to/"):
                self.send_header("Location", self.path.removeprefix("/to/"))
            if self.path == "/broken":
                self.send_header("Content-Length", str(len(data) + 100))
            self.end_headers()
            return self.wfile.write(b"<html>not found</html>" if self.path == "/page" else data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        running.seen = Handler.seen
        yield running
        running.shutdown()


def _message(source) -> str:
    with pytest.raises(UserError) as caught:
        open_video(source)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) > 20
    return message


@pytest.mark.parametrize(
    "kind", ["str", "path", "bytes", "bytearray", "memoryview", "bytesio", "read_before", "file", "unbuffered", "pipe"]
)
def test_every_kind_of_source_gives_the_same_frames(clip, kind):
    data = clip.read_bytes()
    read_before = io.BytesIO(data)
    read_before.read(100)
    with open(clip, "rb") as file, open(clip, "rb", buffering=0) as unbuffered:
        source = {
            "str": str(clip), "path": clip, "bytes": data, "bytearray": bytearray(data), "memoryview": memoryview(data),
            "bytesio": io.BytesIO(data), "read_before": read_before, "file": file, "unbuffered": unbuffered,
            "pipe": _Pipe(data),
        }[kind]  # fmt: skip
        with open_video(source) as video:
            assert numbers(np.stack([frame for _, frame in video.frames()])) == list(range(12))
        assert not file.closed


def test_a_named_pipe_is_read(clip, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(clip.read_bytes()), daemon=True).start()
    with open_video(tmp_path / "pipe") as video:
        assert numbers(video.frames_at([0.4])) == [10]


def test_addresses_are_read_and_redirections_followed(server):
    for path in ("/clip.mp4", "/to//clip.mp4"):
        with open_video(server.address + path) as video:
            assert numbers(video.frames_at([0.0, 0.2])) == [0, 5]


def test_addresses_that_fail(server, tmp_path):
    secret = write_clip(tmp_path / "secret.mp4", numbered(3))
    assert "404 Not Found" in _message(f"{server.address}/gone")
    assert "broke" in _message(f"{server.address}/broken")
    assert "not a video" in _message(f"{server.address}/page")
    assert "refused" in _message("http://127.0.0.1:9/clip.mp4")
    assert "file" in _message(f"{server.address}/to/file://{secret}")
    for address in (
        f"file://{secret}",
        "ftp://127.0.0.1/clip.mp4",
        "rtsp://127.0.0.1/x",
        f"subfile,,start,0,end,9,,:{secret}",
    ):
        assert address in _message(address)
    for address in ("http://", "http://127.0.0.1:port/", "https://127.0.0.1:9/\x00", "http://a b/"):
        _message(address)


def _playlists(target: str) -> dict[str, str]:
    return {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "concat.txt": f"ffconcat version 1.0\nfile '{target}'\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "dash.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{target}</BaseURL></Representation>'
        f"</AdaptationSet></Period></MPD>",
        "subtitles.srt": "1\n00:00:00,000 --> 00:00:01,000\nwords\n",
        "text.txt": "words " * 1000,
    }


@pytest.mark.parametrize("suffix", ["", ".mp4"])
@pytest.mark.parametrize("name", _playlists(""))
def test_no_file_makes_another_one_open(name, suffix, server, clip, tmp_path):
    """A playlist that names a real video is refused unread, be it called what it is or a video."""
    for target in (f"{server.address}/clip.mp4", str(clip), clip.name):
        path = tmp_path / (name + suffix)
        path.write_text(_playlists(target)[name])
        assert str(path) in _message(path)
        assert "not a video" in _message(path.read_bytes())
    assert server.seen == []


def test_a_numbered_name_is_a_name(tmp_path):
    """FFmpeg would take %d for a sequence of pictures."""
    write_clip(tmp_path / "a.png", numbered(1), codec="png", container="image2")
    os.rename(tmp_path / "a.png", tmp_path / "frame1.png")
    _message(tmp_path / "frame%d.png")
    os.rename(tmp_path / "frame1.png", tmp_path / "frame%d.png")
    with open_video(tmp_path / "frame%d.png") as video:
        assert video.width == 64


def _cut(path: Path, fraction: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    return path


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.mp4", {"container_options": {"movflags": "faststart"}}),
        ("sound.mp4", {"container_options": {"movflags": "faststart"}, "audio": 4.0}),
        ("fragments.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("clip.mkv", {}),
        ("clip.avi", {"codec": "mpeg4"}),
        ("clip.flv", {}),
    ],
)
def test_data_cut_short_are_reported(tmp_path, name, options, fraction):
    noise = np.random.default_rng(0).integers(0, 256, (100, 32, 64, 3), dtype=np.uint8)
    path = _cut(write_clip(tmp_path / name, noise, keyframe_every=10, **options), fraction)
    if name == "clip.mkv" and fraction == 0.97:  # whole blocks, and a tenth of a second less than declared: no harm
        with open_video(path) as video:
            assert video.duration == pytest.approx(3.88, abs=0.05)
    else:
        assert f"{path} is cut short: its data end at " in _message(path)


def test_a_cut_names_both_times(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", numbered(100))
    assert "s of 4.0 s; copy or download it again" in _message(_cut(path, 0.5))


def test_a_missing_index_is_reported(tmp_path):
    path = _cut(write_clip(tmp_path / "clip.mp4", numbered(50)), 0.6)
    assert f"{path} is cut short or damaged: its index (moov) is missing" in _message(path)


def test_sound_without_pictures(tmp_path):
    path = write_sound(tmp_path / "song.mp4")
    assert _message(path) == f"{path} has no video stream (beside audio); give a file with a video"


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=8000)
        cover = out.add_stream("mjpeg", rate=1)
        cover.disposition = av.stream.Disposition.attached_pic
        cover.width, cover.height, cover.pix_fmt = 64, 32, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(numbered(1)[0], "rgb24")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 8000, 0
        for stream, frame in ((cover, picture), (sound, silence)):
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    assert "no video stream" in _message(path)


def test_no_frames(tmp_path):
    path = write_clip(tmp_path / "clip.avi", numbered(1), codec="mjpeg")
    data = path.read_bytes()
    start = data.index(b"LIST", data.index(b"movi") - 8)
    path.write_bytes(data[:start] + b"LIST\x04\x00\x00\x00movi")
    assert _message(path) == f"{path} has no frames; give a video with at least one"


def test_no_frame_that_can_be_decoded(tmp_path):
    path = write_clip(tmp_path / "clip.mov", numbered(3), codec="png")
    path.write_bytes(path.read_bytes().replace(b"IHDR", b"DHRI"))
    with pytest.warns(UserWarning, match="damaged frame"):
        assert "none of its 3 frames can be decoded" in _message(path)


def test_what_is_no_readable_file(tmp_path, monkeypatch):
    missing = tmp_path / "missing.mp4"
    assert _message(missing) == f"there is no file {str(missing)!r}; check the path"
    assert "is a directory" in _message(tmp_path)
    assert "name too long" in _message("x" * 5000)
    assert "null" in _message("x\x00.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4 is empty" in _message(tmp_path / "empty.mp4")
    assert "is empty" in _message(b"")
    assert "is empty" in _message(io.BytesIO())
    assert "opened as text" in _message(io.StringIO("words"))
    assert "closed file" in _message(_closed())
    assert "not int" in _message(7)

    def forbidden(path, mode):  # a test that runs as root cannot make a file that it may not read
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("zoo.data.source.open", forbidden, raising=False)
    assert "Permission denied" in _message(missing)


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.filterwarnings("ignore:.*damaged frame")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_anywhere_ends_in_frames_or_in_one_line(clip, data):
    content = bytearray(clip.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    try:
        with open_video(bytes(content)) as video:
            shapes = {frame.shape for _, frame in video.frames()}
            assert shapes <= {(video.height, video.width, 3)}
    except UserError:
        _message(bytes(content))
