"""Subtitles in a video: as a track that a player can switch on, or drawn into its pictures."""

import contextlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from PIL import Image, ImageDraw, ImageFont

from zoo import output_files
from zoo.data.decode import OPTIONS, open_video
from zoo.data.source import View, open_source
from zoo.data.video_writer import VideoWriter
from zoo.errors import UserError
from zoo.listener import Segment
from zoo.subtitles import on_screen

_TRACKS = {".mp4": "mov_text", ".m4v": "mov_text", ".mov": "mov_text", ".mkv": "subrip"}
_CLOCK = Fraction(1, 1000)
# FFmpeg opens an encoder of subtitles only with a style, though these tracks take none.
_STYLE = (
    b"[Script Info]\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n[Events]\nFormat: Text\n"
)


def check_track(path: Path) -> None:
    """Before long work is begun.

    Raises:
      UserError: videos of that suffix have no track for subtitles.
    """
    if path.suffix.lower() not in _TRACKS:
        raise UserError(f"cannot put subtitles into {path}: give {', '.join(_TRACKS)}, or draw them with --burn")


def mux(source: str, segments: Sequence[Segment], path: Path) -> None:
    """Copies a video's pictures and sound as they are stored, and adds a track of subtitles.

    Raises:
      UserError: the format has no such track or does not take what is copied, or the system refuses.
    """
    check_track(path)
    texts = [piece for segment in segments for piece in on_screen(segment)]
    opened = open_source(source)
    with (
        output_files.replacing(path) as partial,
        contextlib.closing(opened),
        av.open(View(opened.file), "r", options=OPTIONS) as given,
    ):
        try:
            with av.open(partial, "w") as made:
                _copy(given, made, texts, _TRACKS[path.suffix.lower()])
        except (FFmpegError, ValueError) as error:
            names = ", ".join(stream.codec_context.name for stream in (*given.streams.video, *given.streams.audio))
            way_out = "give an .mkv, which takes most, or draw the subtitles with --burn"
            raise UserError(f"{path.suffix} does not take {names} as they are in {source}; {way_out}") from error


def _copy(given: InputContainer, made: OutputContainer, texts: Sequence[tuple[float, float, str]], codec: str) -> None:
    copied: dict[Stream, Stream] = {
        stream: made.add_stream_from_template(stream) for stream in (*given.streams.video[:1], *given.streams.audio)
    }
    track = made.add_stream(codec)
    track.codec_context.subtitle_header = _STYLE  # pyright: ignore[reportAttributeAccessIssue]
    track.time_base = _CLOCK
    begin = float(given.start_time or 0) / av.time_base
    waiting = list(texts)
    for packet in given.demux(*copied):
        if packet.dts is None:
            continue
        while waiting and waiting[0][0] + begin <= float(packet.dts * packet.time_base):
            made.mux(_packet(*waiting.pop(0), begin, track, codec))
        packet.stream = copied[packet.stream]
        made.mux(packet)
    for text in waiting:
        made.mux(_packet(*text, begin, track, codec))


def _packet(start: float, end: float, text: str, begin: float, track: Stream, codec: str) -> Packet:
    data = text.encode()
    packet = Packet(len(data).to_bytes(2) + data if codec == "mov_text" else data)
    packet.time_base, packet.stream = _CLOCK, track
    packet.pts = packet.dts = round((start + begin) * 1000)
    packet.duration = round((end - start) * 1000)
    return packet


def burn(source: str, segments: Sequence[Segment], path: Path, told: Callable[[float], None]) -> None:
    """Draws the subtitles into the pictures; the sound is copied as it is stored.

    Args:
      told: called with the seconds that are done.

    Raises:
      UserError: the video cannot be read, or the other not be written.
    """
    texts = [piece for segment in segments for piece in on_screen(segment)]
    with open_video(source) as video, VideoWriter(path, video.sound()) as writer:
        for seconds, frame in video.frames():
            while texts and texts[0][1] <= seconds:
                texts.pop(0)
            is_shown = texts and texts[0][0] <= seconds
            writer.write(seconds, _drawn(frame, texts[0][2]) if is_shown else frame)
            told(seconds)


def _drawn(frame: np.ndarray, text: str) -> np.ndarray:
    height, width = frame.shape[:2]
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    size = max(8, round(min(height / 16, width / 24)))
    font = ImageFont.load_default(size)
    pen.multiline_text(
        (width / 2, height - size / 2),
        text,
        fill=(255, 255, 255),
        font=font,
        anchor="md",
        align="center",
        stroke_width=max(1, size // 10),
        stroke_fill=(0, 0, 0),
    )
    return np.asarray(image)
