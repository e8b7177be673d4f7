"""A page to search an index of videos and to play what is found, for this machine alone."""

import contextlib
import math
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from zoo.data.decode import open_video
from zoo.errors import UserError
from zoo.excerpt import write_excerpt
from zoo.search_engine import SearchEngine
from zoo.video_index import Filters, Hit, VideoIndex
from zoo.web_pages import render

_HOST = "127.0.0.1"
_COUNT = 24  # segments on a page
_DIGITS = 9  # of a segment's number; Python refuses to read thousands of them
_FIELDS = ("text", "label", "file", "after", "before")
# The page's own scripts and files, and no other's: a file's name or a transcript must not become a script.
_POLICY = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:"


def serve(index: VideoIndex, port: int) -> None:
    """Serves until it is stopped; prints the address first.

    Raises:
      UserError: the port is taken, or not allowed.
    """
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((_HOST, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used: {error.strerror}; give another with --port") from error
        print(f"http://{_HOST}:{place.getsockname()[1]}  (Ctrl-C stops it)", flush=True)
        uvicorn.Server(uvicorn.Config(application(index), log_level="warning")).run(sockets=[place])


def application(index: VideoIndex) -> Starlette:
    """The page, the indexed files, and the pictures and copies of their segments; anything else is not found (404)."""
    engine = SearchEngine(index)

    def page(request: Request) -> Response:
        asked = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
        status = 200
        try:
            hits, told = _answer(engine, asked, request.query_params.get("like"))
        except UserError as error:
            hits, told, status = [], str(error), 400
        values = {"asked": asked, "folder": str(index.folder), "labels": engine.labels(), "hits": hits, "told": told}
        return HTMLResponse(render("search.html", **values), status, {"Content-Security-Policy": _POLICY})

    def picture(request: Request) -> Response:
        found = index.picture(request.path_params["key"], _number(request.path_params["number"]))
        if found is None:
            raise HTTPException(404)
        return Response(found, media_type="image/jpeg")

    def video(request: Request) -> Response:
        path = index.file_of(request.path_params["key"])
        if path is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, headers={"X-Content-Type-Options": "nosniff"})

    def clip(request: Request) -> Response:
        """A segment as an MP4 that browsers play, for files that they do not."""
        key, number = request.path_params["key"], _number(request.path_params["number"])
        path, stretch = index.file_of(key), index.stretch(key, number)
        if path is None or stretch is None or not path.is_file():
            raise HTTPException(404)
        try:
            with tempfile.TemporaryDirectory() as folder, open_video(path) as reader:
                copy = Path(folder) / "clip.mp4"
                write_excerpt(reader, *stretch, copy)
                return Response(copy.read_bytes(), media_type="video/mp4")
        except UserError as error:  # it is not as it was indexed
            raise HTTPException(404, str(error)) from error

    return Starlette(
        routes=[
            Route("/", page),
            Route("/picture/{key}/{number}", picture),
            Route("/video/{key}", video),
            Route("/clip/{key}/{number}", clip),
        ],
        # Another site's page must not read this one by a name of its own that leads here.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])],
    )


def _answer(engine: SearchEngine, asked: Mapping[str, str], like: str | None) -> tuple[list[Hit], str]:
    """What is found, and the heading above it."""
    filters = Filters(
        asked["file"] or None, asked["label"] or None, _seconds(asked, "after"), _seconds(asked, "before")
    )
    if like is not None:
        key, _, number = like.partition("/")
        hits = engine.like(key, _number(number), _COUNT, filters)
        if hits is None:
            raise HTTPException(404)
    elif asked["text"]:
        hits = engine.by_words(asked["text"], _COUNT, filters)
    elif any(asked.values()):
        hits = engine.all(_COUNT, filters)
    else:
        return [], f"{len(engine.index)} segments of {len(engine.index.files())} videos can be found"
    if not hits:
        return hits, "Nothing found"
    return hits, f"{'The first ' if len(hits) == _COUNT else ''}{len(hits)} segments found"


def _number(text: str) -> int:
    """A segment's number in its file, as an address has it."""
    if not text.isdecimal() or len(text) > _DIGITS:
        raise HTTPException(404)
    return int(text)


def _seconds(asked: Mapping[str, str], name: str) -> float | None:
    with contextlib.suppress(ValueError):
        seconds = float(asked[name]) if asked[name] else None
        if seconds is None or math.isfinite(seconds):
            return seconds
    raise UserError(f"{name} {asked[name]!r} is no time; give seconds, such as 12.5")
