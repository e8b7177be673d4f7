"""Cameras and network streams, whose frames come whether or not anyone has time for them."""

import collections
import threading
from collections.abc import Iterator
from typing import Self

import av
import numpy as np
from av.error import FFmpegError

from zoo.errors import UserError

# A camera's device is a format of FFmpeg's of its own; addresses say what they are.
_SCHEMES = ("rtsp", "rtsps", "rtmp", "tcp", "udp", "srt")
_CAMERA, _CAMERA_FORMAT = "/dev/video", "v4l2"
_WAITING = 4  # frames that wait for the reader before the oldest is dropped
_TIMEOUT = (10.0, 10.0)  # seconds to open, and for the next frame


def is_live(source: str) -> bool:
    """Whether `source` is a camera (`/dev/video0`) or the address of a stream (`rtsp://...`), not a file."""
    return source.startswith(_CAMERA) or source.partition("://")[0].lower() in _SCHEMES


class LiveReader:
    """An open camera or stream: `with LiveReader("rtsp://camera/1") as live: for seconds, frame in live.frames(): ...`

    A thread decodes what comes. Whoever reads too slowly gets the newest frames and misses those between.

    Attributes:
      name: the source.
      dropped: frames that were decoded and thrown away because nobody took them in time.

    Raises:
      UserError: nothing answers at that address.
    """

    def __init__(self, source: str):
        self.name, self.dropped = source, 0
        form = _CAMERA_FORMAT if source.startswith(_CAMERA) else None
        try:
            self._container = av.open(source, "r", format=form, timeout=_TIMEOUT)
        except (FFmpegError, OSError) as error:
            raise UserError(f"cannot open {source}: {error.strerror}; check the address and the network") from error
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"{source} sends no video")
        self._frames: collections.deque[tuple[float, np.ndarray]] = collections.deque()
        self._changed = threading.Condition()
        self._ended = self._closing = False
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops receiving."""
        self._closing = True
        self._thread.join()
        self._container.close()

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yields (seconds since the first frame, uint8 RGB [H, W, 3]) until the source ends.

        Raises:
          UserError: the source broke off, which is told after the last whole frame.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._ended)
                if not self._frames:
                    break
                item = self._frames.popleft()
            yield item
        if self._fault:
            raise UserError(f"{self.name} broke off: {self._fault}")

    def _receive(self) -> None:
        start = None
        try:
            for frame in self._container.decode(video=0):
                if self._closing:
                    break
                now = frame.time or 0.0
                start = now if start is None else start
                item = now - start, frame.to_ndarray(format="rgb24")
                with self._changed:
                    if len(self._frames) == _WAITING:
                        self._frames.popleft()
                        self.dropped += 1
                    self._frames.append(item)
                    self._changed.notify()
        except FFmpegError as error:
            self._fault = error.strerror
        with self._changed:
            self._ended = True
            self._changed.notify()
