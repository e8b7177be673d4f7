"""Writing what people look at: sheets of frames as PNG, clips as GIF, WebP and MP4."""

from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from PIL import features

from zoo.errors import UserError

_LINE = 96  # grey of the lines between clips


def check_format(path: Path) -> None:
    """Before long work is begun.

    Raises:
      UserError: nothing here writes files of that suffix.
    """
    written = {
        ".gif": True,
        ".webp": features.check("webp"),
        ".mp4": "libx264" in av.codecs_available,
        ".png": True,
    }
    suffix = path.suffix.lower()
    if not written.get(suffix):
        lacks = f"this installation has no encoder for {suffix}" if suffix in written else "no encoder writes that"
        raise UserError(f"cannot write {path}: {lacks}; give {', '.join(kind for kind in written if written[kind])}")


def strips(clips: np.ndarray, columns: int = 1) -> np.ndarray:
    """Frames side by side in time, one strip a clip: uint8 `[N, T, H, W, C]` to one picture `[H', W', C]`."""
    frames = np.pad(clips, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=_LINE)
    n, t, h, w, c = frames.shape
    rows = frames.transpose(0, 2, 1, 3, 4).reshape(n, h, t * w, c)
    rows = np.pad(rows, ((0, -n % columns), (0, 0), (0, 4), (0, 0)), constant_values=_LINE)
    lines = -(-n // columns)
    sheet = rows.reshape(columns, lines, h, -1, c).transpose(1, 2, 0, 3, 4)
    return sheet.reshape(lines * h, -1, c)


def grid(clips: np.ndarray, columns: int) -> np.ndarray:
    """Clips side by side, moving together: uint8 `[N, T, H, W, C]` to one clip `[T, H', W', C]`."""
    n, t, h, w, c = clips.shape
    clips = np.pad(clips, ((0, -n % columns), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=_LINE)
    lines = len(clips) // columns
    rows = clips.reshape(lines, columns, t, h + 1, w + 1, c).transpose(2, 0, 3, 1, 4, 5)
    return rows.reshape(t, lines * (h + 1), columns * (w + 1), c)


def _rgb(pixels: np.ndarray, enlarge: int) -> np.ndarray:
    pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
    return pixels.repeat(enlarge, -3).repeat(enlarge, -2)


def _write(path: Path, pixels: np.ndarray, **options) -> Path:
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    iio.imwrite(temporary, pixels, **options)
    temporary.replace(path)
    return path


def write_picture(path: Path, pixels: np.ndarray, enlarge: int = 2) -> Path:
    """Writes uint8 `[H, W, 1 or 3]`, each pixel `enlarge` times as large."""
    return _write(path, _rgb(pixels, enlarge))


def write_video(path: Path, frames: np.ndarray, *, frame_rate: int, enlarge: int = 4) -> Path:
    """Writes uint8 `[T, H, W, 1 or 3]` as .gif or .webp, which repeat for ever, or .mp4 (H.264)."""
    frames = _rgb(frames, enlarge)
    if path.suffix.lower() == ".gif":
        return _write(path, frames, duration=1000 / frame_rate, loop=0)
    if path.suffix.lower() == ".webp":
        return _write(path, frames, duration=round(1000 / frame_rate), loop=0, lossless=True)
    # H.264 with 4:2:0 colour wants even sides.
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    return _write(path, frames, plugin="pyav", codec="libx264", fps=frame_rate)
