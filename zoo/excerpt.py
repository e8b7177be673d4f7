"""Videos cut short or made small, pictures and sound."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.packet import Packet

from zoo.data.decode import VideoReader
from zoo.data.video_writer import VideoWriter

_FRAMES_HELD = 32  # at a time


def write_excerpt(reader: VideoReader, start: float, end: float, path: Path) -> None:
    """Writes what a video shows from `start` to `end`, in seconds, at its mean frame rate; the sound is copied.

    Raises:
      UserError: the format is not known, or the system refuses.
    """
    count = max(1, round((end - start) * reader.frame_rate))
    times = start + np.arange(count) / reader.frame_rate
    with VideoWriter(path, _sound(reader, start, end)) as writer:
        for first in range(0, count, _FRAMES_HELD):
            some = times[first : first + _FRAMES_HELD]
            for seconds, frame in zip(some, reader.frames_at(some), strict=True):
                writer.write(seconds - start, frame)


def write_small_copy(reader: VideoReader, short_side: int, path: Path) -> None:
    """Writes all of a video, made smaller until its short side is no longer than that; the sound is copied.

    Raises:
      UserError: the format is not known, or the system refuses.
    """
    scale = min(1.0, short_side / min(reader.height, reader.width))
    size = max(1, round(reader.height * scale)), max(1, round(reader.width * scale))
    with VideoWriter(path, reader.sound()) as writer:
        for seconds, frame in reader.frames(size):
            writer.write(seconds, frame)


def _sound(reader: VideoReader, start: float, end: float) -> Iterator[tuple[float, Packet]]:
    """The packets of a stretch, on its own clock."""
    for seconds, packet in reader.sound():
        if seconds >= end:
            return
        if seconds >= start and packet.pts is not None:
            packet.pts = packet.dts = packet.pts - round(start / packet.time_base)
            yield seconds - start, packet
