"""Opens videos, be they paths, addresses, bytes or file objects; nothing else in the zoo does.

Decoding is PyAV's own. imageio's pyav plugin, which is fine for writing, asks for frames by number at a constant rate,
ignores the pictures' rotation and lets FFmpeg open whatever address a file names.

What a frame is here:
- a picture as a player shows it: turned and mirrored as the file says, stored pixels made square, transparent ones
  black, all in the size of the first picture (as the ffmpeg command does when a stream changes its size);
- uint8 RGB [height, width, 3]. The matrix (BT.601, 709, 2020) and range are those that the file states; a file that
  states none is taken for BT.601 in limited range, as FFmpeg and OpenCV take it, which cut and decoded most training
  sets. High dynamic range is not tone-mapped;
- shown from its own time stamp on, counted in seconds from that of the first picture, until the next one's.

A still picture is a video of one frame. Data that stop before the declared end are an error in `open_video`, not a
repeated last frame.
"""

import contextlib
import heapq
import itertools
import os
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from zoo.data.picture import Picture, Stretch
from zoo.data.source import Source, View, open_source
from zoo.errors import UserError

# A file must not make FFmpeg open another one, on this disk or elsewhere. So only containers that hold their own data
# are read (no HLS or DASH playlist, concat list, SDP or picture sequence), and no protocol at all is open to them: the
# bytes reach FFmpeg through Python.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,nut,ivf,mxf,dv,rm,yuv4mpegpipe,"
    "h264,hevc,m4v,mjpeg,obu,gif,apng,webp_anim,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,jpegxl_pipe,jpegxl_anim,ppm_pipe,pgm_pipe"
)
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}

# Matroska and FLV round time stamps to a millisecond: the third frame at 30 a second stands at 67 ms, not 66.67.
_ROUNDING = 0.00051

# Emptying and refilling the decoder at a seek costs about as much as decoding this many frames.
_FRAMES_WORTH_A_SEEK = 16

# A key frame that cannot be reached, so many in a row: then decode from the start.
_TRIES = 3

_READ_AHEAD = 1 << 17  # bytes FFmpeg asks Python for at a time


def open_video(source: str | os.PathLike | bytes | BinaryIO, threads: int = 0) -> "VideoReader":
    """Opens a video; use it as `with open_video(source) as video`.

    Args:
      source: a path, an http or https address, the file's bytes, or a binary file object (read from its first byte if
        it can seek, else copied from where it stands to a temporary file).
      threads: that decode it; 0 takes as many as there are cores. Who reads several videos at a time gives 1: frames
        of 256 lines are then 25 to 30% less work in all.

    Raises:
      UserError: nothing there, or not readable, or not a video; a video without pictures; one that was cut short.
    """
    opened = open_source(source)
    try:
        return VideoReader(opened, threads)
    except BaseException:
        opened.close()
        raise


class VideoReader:
    """An open video.

    Opening reads through the container once, without decoding, so that what follows is known and not merely declared.

    Attributes:
      name: what to call it in messages.
      duration: seconds from the first frame to the end of the last.
      frame_rate: frames a second, on average.
      height, width: of every frame, in pixels.
    """

    def __init__(self, source: Source, threads: int):
        self._source, self._threads = source, threads
        self.name = source.name
        self._container, self._stream = self._open()
        self._scan()
        self._restart()
        first = next(self._decode(self._container, self._stream), None)
        if first is None:
            raise UserError(
                f"{self.name}: none of its {len(self._stamps)} frames can be decoded; copy or download it again"
            )
        self._origin, frame = first
        self.duration = float((self._end - self._origin) * self._tick)
        self.frame_rate = float(self._stream.average_rate or 0) or len(self._stamps) / self.duration
        self._picture = Picture(self.name, frame, float(self._stream.sample_aspect_ratio or 1), threads)
        self.height, self.width = self._picture(frame).shape[:2]
        self._leaves_out &= not frame.interlaced_frame  # a packet may be half of a frame

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what `open_video` opened; a file object that the caller gave stays open."""
        self._container.close()
        self._source.close()

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Yields (seconds, uint8 [H, W, 3]) of every frame in order, each decoded when asked for.

        Args:
          size: height and width to stretch every frame to, straight from what is stored, as the ffmpeg command does
            (`-s WIDTHxHEIGHT`: swscale's bicubic filter); a tiny frame costs a fraction of a whole one.
        """
        stretch = Stretch(*(size if self._picture.transposed else size[::-1])) if size else None
        container, stream = self._open()
        with container:
            for stamp, frame in self._decode(container, stream):
                yield float((stamp - self._origin) * self._tick), self._picture(frame, stretch)

    def frames_at(
        self, times: Sequence[float] | np.ndarray, each: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> np.ndarray:
        """The frame shown at each time: the last one whose time stamp is not later.

        Decodes from the nearest key frame on where that saves work, and every wanted frame once.

        Args:
          times: seconds, in any order. Before the start stands the first frame, after the end the last.
          each: a function of a frame, whose result is kept in its stead: a big frame can be made small before the next
            one is decoded.

        Returns:
          uint8 [len(times), H, W, 3], or `each`'s results stacked.
        """
        stamps = self._origin + (np.asarray(times, np.float64) + _ROUNDING) / float(self._tick)
        order = np.argsort(stamps, kind="stable")
        kept: list[Any] = [None] * len(order)
        shown = picture = None
        for index, frame in zip(order, self._play(stamps[order]), strict=True):
            if frame is not shown:
                picture = self._picture(frame)
                shown, picture = frame, each(picture) if each else picture
            kept[index] = picture
        return np.stack(kept) if kept else np.empty((0, self.height, self.width, 3), np.uint8)

    def sound(self) -> Iterator[tuple[float, Packet]]:
        """Yields (seconds, packet) of the sound beside the picture in order, as it is stored; none where there is none.

        Time counts from the first picture, in the packets too; what sounds before it is left out.
        """
        container, _ = self._open()
        with container:
            stream = container.streams.best("audio")
            for packet in _packets(container, stream) if stream else ():
                if packet.pts is None or not packet.size:
                    continue
                start = round(self._origin * self._tick / packet.time_base)
                if packet.pts >= start:
                    packet.pts = packet.dts = packet.pts - start
                    yield float(packet.pts * packet.time_base), packet

    def _open(self) -> tuple[InputContainer, VideoStream]:
        """A container over the source's bytes, at their start, and its video stream."""
        try:
            container = av.open(View(self._source.file), "r", options=OPTIONS, buffer_size=_READ_AHEAD)
        except FFmpegError as error:
            raise self._unreadable() from error
        best = container.streams.best("video")
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # a song's cover
        stream = min(streams, key=lambda s: s is not best, default=None)
        if stream is None or stream.codec_context is None:
            fault = "no video stream" if stream is None else "a video stream that FFmpeg has no decoder for"
            kinds = ", ".join(sorted({s.type for s in container.streams} - {"video"})) or "nothing else"
            container.close()
            raise UserError(f"{self.name} has {fault} (beside {kinds}); give a file with a video")
        stream.thread_type, stream.codec_context.thread_count = "AUTO", self._threads
        return container, stream

    def _unreadable(self) -> UserError:
        if View(self._source.file).read(8)[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):  # QuickTime, MP4
            return UserError(
                f"{self.name} is cut short or damaged: its index (moov) is missing; copy or download it again"
            )
        return UserError(
            f"{self.name} is not a video in a format that is read here (mp4, mkv, webm, avi, ts, gif, ...)"
        )

    def _restart(self) -> None:
        """Back to the first packet. Opening anew does it for every format; seeking to the start fails in some."""
        self._container.close()
        self._container, self._stream = self._open()

    def _scan(self) -> None:
        """Notes the time stamps of all packets and of key frames, and where the data end."""
        stream = self._stream
        self._tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)  # seconds
        rate = stream.average_rate or stream.guessed_rate or 25
        self._period = max(1, round(float(1 / (rate * self._tick))))  # ticks a frame lasts where nothing tells
        stamps: list[int] = []
        keys: list[int] = []
        ends: list[int] = []
        untimed = 0
        reordered = False
        end_of_all = 0.0  # seconds, sound included
        cut = False
        try:
            for packet in self._container.demux():
                if not packet.size:
                    continue
                cut = packet.is_corrupt  # of the last packet: the file ended within it
                ours = packet.stream_index == stream.index
                if packet.pts is None:
                    untimed += ours
                    continue
                reordered |= ours and packet.pts != packet.dts
                end = packet.pts + (packet.duration or (self._period if ours else 0))
                end_of_all = max(end_of_all, float(end * packet.time_base))
                if ours and packet.is_keyframe:
                    keys.append(packet.pts)
                if ours and not packet.is_discard:  # an edit list hides those
                    stamps.append(packet.pts)
                    ends.append(end)
        except FFmpegError:
            cut = True
        # Some muxers store no presentation times, AVI's never do: then the stamps are right as a set, but each is on
        # the wrong frame. FFmpeg's guesses for AVI are wrong where MPEG-4 packs two frames into one packet.
        is_avi = self._container.format.name == "avi"
        self._stamps_in_decoding_order = bool(stream.codec_context.has_b_frames) and (is_avi or not reordered)
        if untimed and not stamps:  # a bare H.264 or HEVC stream: frames follow each other at the nominal rate
            self._tick, self._period = 1 / Fraction(rate.numerator, rate.denominator), 1
            stamps, ends = list(range(untimed)), [untimed]
        if not stamps:
            raise UserError(f"{self.name} has no frames; give a video with at least one")
        self._stamps, self._keys, self._end = np.sort(stamps), np.sort(keys or stamps[:1]), max(ends)
        self._leaves_out = not untimed and not self._stamps_in_decoding_order and not is_avi
        self._check_whole(cut, float(self._end * self._tick), end_of_all)

    def _check_whole(self, cut: bool, end: float, end_of_all: float) -> None:
        """Refuses a file whose data stop before their time; all in seconds on the container's own clock."""
        declared = 0.0
        # AVI counts frames in its header, wrongly where the recorder was stopped; a missing tail shows as `cut`.
        is_told = self._container.format.name != "avi"
        if is_told and self._stream.duration:
            declared = float(((self._stream.start_time or 0) + self._stream.duration) * self._tick)
        elif is_told and self._container.duration:
            declared, end = self._container.duration / av.time_base, end_of_all
        if cut or end < declared - max(0.2, 0.02 * declared):  # headers are off by some frames in whole files too
            whole = f" of {declared:.1f} s" if declared > end else ""
            raise UserError(
                f"{self.name} is cut short: its data end at {end:.1f} s{whole}; copy or download it again "
                f"(`ffmpeg -i FILE -c copy NEW_FILE` keeps what is there)"
            )

    def _decode(
        self, container: InputContainer, stream: VideoStream, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, VideoFrame]]:
        """(time stamp, frame) in order, from where the container stands.

        Of frames whose time stamps are not wanted only those are decoded that others are predicted from.
        """
        following = 0  # where a stream gives no time stamps, its frames are counted
        waiting: list[int] = []  # a heap; decoders give frames in presentation order, so the least is the next one's
        begun = None  # what is shown before the first key frame cannot be decoded, and has no place in the heap
        for packet in _packets(container, stream):
            if self._stamps_in_decoding_order and packet.pts is not None and not packet.is_discard:
                begun = packet.pts if begun is None else begun
                if packet.pts >= begun:
                    heapq.heappush(waiting, packet.pts)
            if wanted is not None and self._leaves_out:
                is_wanted = packet.pts is None or packet.pts in wanted  # the last, empty packet has no time
                stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            try:
                frames = packet.decode()
            except (FFmpegError, ValueError):  # ValueError: PyAV's, of a decoder that did not start
                warnings.warn(f"{self.name}: a damaged frame is left out, the one before it shown longer", stacklevel=2)
                continue
            for frame in frames:
                stamp = heapq.heappop(waiting) if waiting else following if frame.pts is None else frame.pts
                following = stamp + self._period
                yield stamp, frame

    def _play(self, stamps: np.ndarray) -> Iterator[VideoFrame]:
        """The frame shown at each of ascending time stamps."""
        places = np.searchsorted(self._stamps, stamps, side="right") - 1
        wanted = set(self._stamps[np.maximum(places, 0)].tolist())
        if not wanted:
            return
        far = self._frames_to_key(int(self._stamps[0]), stamps[0]) > _FRAMES_WORTH_A_SEEK
        frames = self._decode_from_key(stamps[0], wanted) if far else self._decode_from_start(wanted)
        shown, coming = None, next(frames)
        seeks = True
        for stamp in stamps:
            if seeks and coming is not None and self._frames_to_key(coming[0], stamp) > _FRAMES_WORTH_A_SEEK:
                here = coming[0]
                frames = self._decode_from_key(stamp, wanted)
                shown, coming = None, next(frames)
                seeks = coming[0] > here  # else the format cannot, and trying again would only cost more
            while coming is not None and (shown is None or coming[0] <= stamp):
                shown, coming = coming[1], next(frames, None)
            assert shown is not None
            yield shown

    def _frames_to_key(self, here: int, stamp: float) -> int:
        """How many frames lie between a time stamp and the last key frame before another one."""
        key = self._keys[np.searchsorted(self._keys, stamp, side="right") - 1]  # the last of all, if none is before
        between = np.searchsorted(self._stamps, [here, key])
        return int(between[1] - between[0]) if key <= stamp else 0

    def _decode_from_start(self, wanted: Container[int]) -> Iterator[tuple[int, VideoFrame]]:
        self._restart()
        return self._decode(self._container, self._stream, wanted)

    def _decode_from_key(self, stamp: float, wanted: Container[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Frames from a key frame on, the first not later than the time stamp: an index may be wrong, or missing."""
        for key in reversed(self._keys[self._keys <= stamp][-_TRIES:].tolist()):
            try:
                self._container.seek(key, stream=self._stream)
            except FFmpegError:
                break
            frames = self._decode(self._container, self._stream, wanted)
            first = next(frames, None)
            if first is not None and first[0] <= stamp:
                return itertools.chain([first], frames)
        return self._decode_from_start(wanted)


def _packets(container: InputContainer, stream: Any) -> Iterator[Packet]:
    """A stream's packets. PyAV's own iterator, left in the middle, does not give back all of its memory by itself."""
    with contextlib.closing(container.demux(stream)) as packets:
        yield from packets
