"""From a decoded frame to the RGB picture that a player shows."""

import itertools
from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from zoo.errors import UserError

# FFmpeg's default conversion is off by up to 3 of 255; with these flags by less than 1.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Picture:
    """Turns the frames of one video into uint8 RGB [H, W, 3], in the size and orientation of the first.

    Args:
      name: of the video, in messages.
      first: its first frame.
      aspect: a stored pixel's width by its height.
      threads: that convert one frame; 0 takes as many as there are cores.

    Attributes:
      transposed: whether the stored rows are shown as columns.
    """

    def __init__(self, name: str, first: VideoFrame, aspect: float, threads: int):
        self._name, self._threads = name, threads
        self._size = max(1, round(first.width * aspect)), first.height
        self.transposed, self._upside_down, self._mirrored = _orientation(first)

    def __call__(self, frame: VideoFrame, stretch: "Stretch | None" = None) -> np.ndarray:
        """The frame as a player shows it, but for its size if that is to be stretched.

        Raises:
          UserError: a kind of picture that FFmpeg cannot turn into RGB.
        """
        width, height = self._size
        has_alpha = any(component.is_alpha for component in frame.format.components)
        try:
            if stretch is None:
                # By planes: FFmpeg goes to packed RGB in two to three times the time, and to the same within 1 of 255.
                layout, how = ("gbrap" if has_alpha else "gbrp"), {"interpolation": _EXACT, "threads": self._threads}
                pixels = frame.to_ndarray(format=layout, width=width, height=height, **how)
            else:
                pixels = stretch(frame, "rgba" if has_alpha else "rgb24")
        except FFmpegError as error:  # YCgCo, ICtCp, constant luminance; pictures too big for the memory
            kind = f"{width}x{height} {frame.format.name} with colour matrix {frame.colorspace}"
            raise UserError(f"{self._name}: {kind} cannot be turned into RGB; convert it to H.264 first") from error
        if has_alpha:
            alpha = pixels[..., 3:].astype(np.uint16)
            pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self._upside_down else 1, :: -1 if self._mirrored else 1])


class Stretch:
    """Frames at another width and height by FFmpeg's own scale filter, as the ffmpeg command runs it.

    `VideoFrame.to_ndarray` does not place the colours' samples as that does, which moves pixels by up to 7 of 255.
    """

    def __init__(self, width: int, height: int):
        self._size, self._kind, self._graph, self._count = f"{width}:{height}", None, Graph(), 0

    def __call__(self, frame: VideoFrame, layout: str) -> np.ndarray:
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range, layout)
        frame.pts, frame.time_base = self._count, Fraction(1, 25)  # any that rise: the filter compares them
        self._count += 1
        if kind != self._kind:  # streams may change their size or format
            self._kind, self._graph = kind, Graph()
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            steps = [source, self._graph.add("scale", self._size), self._graph.add("format", layout)]
            for before, after in itertools.pairwise([*steps, self._graph.add("buffersink")]):
                before.link_to(after)
            self._graph.configure()
        self._graph.push(frame)
        return self._graph.pull().to_ndarray()


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """What to do with the stored picture to show it: swap its axes, then turn it upside down, then mirror it.

    FFmpeg's display matrix [[a, b, _], [c, d, _], ...] sends the stored pixel (x, y) to (a x + c y, b x + d y). Phones
    write quarter turns and mirrorings, eight in all; anything else is taken for the nearest.
    """
    if Type.DISPLAYMATRIX not in frame.side_data:
        return False, False, False
    a, b, _, c, d = np.frombuffer(frame.side_data[Type.DISPLAYMATRIX], np.int32)[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, bool(d < 0), bool(a < 0)
    return True, bool(b < 0), bool(c < 0)
