"""Opens the sound of videos and of sound files, as speech models want it: one channel, 16,000 samples a second."""

import os
from collections.abc import Iterator
from typing import BinaryIO, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.error import FFmpegError

from zoo.data.decode import CONTAINERS
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.source import Source, View, open_source
from zoo.errors import UserError

# As for pictures: containers that hold their own data, and no protocol.
_OPTIONS = {
    "format_whitelist": f"{CONTAINERS},wav,w64,mp3,flac,aac,amr,aiff,au,caf,ac3,eac3",
    "protocol_whitelist": "none",
}
_GAP = 0.1  # seconds without sound that are silence, not rounding of time stamps
_MISSING = 1.0  # seconds that may be missing from the length that a file declares


def open_sound(source: str | os.PathLike | bytes | BinaryIO) -> "SoundReader":
    """Opens the sound of a file; use it as `with open_sound(source) as sound`.

    Args:
      source: as for `zoo.data.decode.open_video`; files of sound alone too.

    Raises:
      UserError: nothing there, or not readable, or without a sound track.
    """
    opened = open_source(source)
    try:
        return SoundReader(opened)
    except BaseException:
        opened.close()
        raise


class SoundReader:
    """An open sound track.

    Attributes:
      name: what to call it in messages.
      duration: seconds of sound that the file declares, 0 where it declares none.
      fault: why the sound ended early, once it did, else None.
    """

    def __init__(self, source: Source):
        self._source, self.name = source, source.name
        self.fault: str | None = None
        with self._open() as container:
            track = container.streams.audio[0]
            whole = container.duration if len(container.streams) == 1 else None  # pictures may go on longer
            self.duration = float(track.duration * track.time_base) if track.duration else (whole or 0) / av.time_base

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def samples(self) -> Iterator[np.ndarray]:
        """Yields float32 [n], -1 to 1, one after another from the file's start on; silence fills gaps.

        What follows a damaged place is not read; `fault` tells of it afterwards.
        """
        # In whole numbers FFmpeg takes the mean of two channels; in floating point it adds them up.
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        count = 0
        with self._open() as container:
            begin = (container.start_time or 0) / av.time_base
            try:
                for frame in container.decode(audio=0):
                    missing = 0.0 if frame.time is None else frame.time - begin - count / SAMPLE_RATE
                    if missing > _GAP:
                        silence = np.zeros(round(missing * SAMPLE_RATE), np.float32)
                        count += len(silence)
                        yield silence
                    for part in resampler.resample(frame):
                        count += part.samples
                        yield _scaled(part)
                for part in resampler.resample(None):
                    count += part.samples
                    yield _scaled(part)
            except FFmpegError as error:
                self.fault = f"{self.name} is damaged after {count / SAMPLE_RATE:.1f} s of sound ({error.strerror})"
                return
        if self.duration - count / SAMPLE_RATE > _MISSING:
            self.fault = (
                f"{self.name} is cut short: {count / SAMPLE_RATE:.1f} of {self.duration:.1f} s of sound are there"
            )

    def _open(self) -> InputContainer:
        try:
            container = av.open(View(self._source.file), "r", options=_OPTIONS)
        except FFmpegError as error:
            what = "is not a video or a sound in a format that is read here (mp4, mkv, avi, wav, mp3, flac, ogg, ...)"
            raise UserError(f"{self.name} {what}, or it is damaged") from error
        if not container.streams.audio:
            container.close()
            raise UserError(f"{self.name} has no sound track; give a file with sound")
        return container


def _scaled(part: AudioFrame) -> np.ndarray:
    return part.to_ndarray()[0].astype(np.float32) / 32768


def blocks(parts: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples, `size` at a time; the last block is as long as what is left."""
    waiting, count = [], 0
    for part in parts:
        while count + len(part) >= size:
            taken = size - count
            yield np.concatenate([*waiting, part[:taken]])
            waiting, count, part = [], 0, part[taken:]
        waiting.append(part)
        count += len(part)
    if count:
        yield np.concatenate(waiting)
