"""Writes a video frame by frame, each shown from its own time on; what was written before a stop can be played."""

import math
import os
import warnings
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from zoo import output_files
from zoo.errors import UserError

# Container and codec by a file's suffix. All of them keep a time stamp for each frame; AVI cannot.
FORMATS = {
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}

# What sound a container takes as it is and players know there.
_SOUNDS = {
    "mp4": {"aac", "mp2", "mp3", "ac3", "eac3", "alac", "flac", "opus"},
    "mov": {"aac", "mp2", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"},
    "matroska": {"aac", "mp2", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}

_CODEC_OPTIONS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8"},
}

# An index at each key frame, and nothing held back, so that even what a killed process leaves can be played.
_FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
_UNBUFFERED = {"flush_packets": "1"}

_CLOCK = Fraction(1, 90_000)
_KEY_EVERY = 50  # frames
_LEAST_SIDE = 16  # pixels, below which some encoders refuse


def check_format(path: Path) -> None:
    """Before long work is begun.

    Raises:
      UserError: videos of that suffix are not written here.
    """
    if path.suffix.lower() not in FORMATS:
        kind = path.suffix or "a name without suffix"
        raise UserError(f"cannot write {path}: {kind} is no format that is written here; give {', '.join(FORMATS)}")


class VideoWriter:
    """Use it as `with VideoWriter(path) as video: video.write(seconds, frame)`.

    The file is written beside `path` under another name and takes its place at the end, whether that is reached or
    the work is interrupted: then with the frames so far. Without any frame nothing is left.

    Args:
      sound: what `VideoReader.sound` gives, copied as it is; a warning says so if the format does not take that.

    Raises:
      UserError: the format is not known, or the system refuses.
    """

    def __init__(self, path: Path, sound: Iterable[tuple[float, Packet]] = ()):
        check_format(path)
        output_files.check_writable(path)
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._last = -1  # time stamp
        self._sound = iter(sound)
        self._coming: tuple[float, Packet] | None = None  # the next of the sound
        self._track: AudioStream | None = None
        self._bare: Callable[[Packet], list[Packet]] = lambda packet: [packet]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with output_files.refusal_told(self.path):
            try:
                if self._container is not None and self._stream is not None:
                    try:
                        self._container.mux(self._stream.encode(None))
                        if kind is None:
                            self._copy_sound(math.inf)
                    finally:
                        self._container.close()
                    self._partial.replace(self.path)
            finally:
                self._partial.unlink(missing_ok=True)

    def write(self, seconds: float, frame: np.ndarray) -> None:
        """Adds a frame uint8 [H, W, 3], the first of which tells the size; later than the one before it.

        Raises:
          UserError: the system refuses, such as a full disk.
        """
        with output_files.refusal_told(self.path):
            height, width = (max(_LEAST_SIDE, side + side % 2) for side in frame.shape[:2])  # 4:2:0 wants even sides
            padding = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(frame, padding, mode="edge")), "rgb24")
            container, stream = self._container, self._stream
            if container is None or stream is None:
                container, stream = self._open(height, width)
            self._last = max(self._last + 1, round(seconds / _CLOCK))
            picture.pts, picture.time_base = self._last, _CLOCK
            container.mux(stream.encode(picture))
            self._copy_sound(seconds)

    def _open(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        kind, codec = FORMATS[self.path.suffix.lower()]
        options = _UNBUFFERED | (_FRAGMENTS if kind in ("mp4", "mov") else {})
        container = av.open(os.fspath(self._partial), "w", format=kind, container_options=options)
        self._container = container
        stream = cast(VideoStream, container.add_stream(codec, rate=25, options=_CODEC_OPTIONS[codec]))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.gop_size = _KEY_EVERY
        stream.time_base = context.time_base = _CLOCK
        self._stream = stream
        self._coming = next(self._sound, None)
        if self._coming is not None:
            self._add_track(container, cast(AudioStream, self._coming[1].stream))
        return container, stream

    def _add_track(self, container: OutputContainer, theirs: AudioStream) -> None:
        codec = theirs.codec_context.codec.canonical_name if theirs.codec_context else "unknown"
        suffix = self.path.suffix.lower()
        taken = _SOUNDS[FORMATS[suffix][0]]
        if codec not in taken:
            told = f"{self.path.name} has no sound: {suffix} takes {', '.join(sorted(taken))}, and this is {codec}"
            warnings.warn(told, stacklevel=4)
            return
        self._track = container.add_stream_from_template(theirs)
        if codec == "aac":  # of a broadcast it has a header in each packet, which these containers take none of
            self._bare = BitStreamFilterContext("aac_adtstoasc", theirs).filter

    def _copy_sound(self, until: float) -> None:
        """What sounds up to so many seconds."""
        while self._track and self._container and self._coming and self._coming[0] <= until:
            for bare in self._bare(self._coming[1]):
                bare.stream = self._track
                self._container.mux(bare)
            self._coming = next(self._sound, None)
