"""Stretches cut out of videos, pictures and sound."""

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


def _sound(reader: VideoReader, start: float, end: float) -> Iterator[tuple[float, Packet]]:
    """The packets of a stretch, on its own clock."""
    for seconds, packet in reader.sound():
        if seconds >= end:
            return
        if seconds >= start and packet.pts is not None:
            packet.pts = packet.dts = packet.pts - round(start / packet.time_base)
            yield seconds - start, packet
