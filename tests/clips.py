"""Makes the tests' video files: every codec, pixel format and timing that the decoder must read, written by PyAV."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

# Fine enough for any times that a test asks for, and what MPEG itself counts in.
_CLOCK = Fraction(1, 90_000)

_SOUND_RATE = 8000

# What a codec stores by default: RGB where it can, so that a lossless clip is lossless.
_PIXEL_FORMATS = {"ffv1": "bgr0", "png": "rgb24", "qtrle": "rgb24", "gif": "rgb8", "mjpeg": "yuvj420p"}


def write_clip(
    path: str | Path,
    frames: Iterable[np.ndarray | av.VideoFrame],
    *,
    fps: float | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str | None = None,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    flip: bool = False,
    sample_aspect: Fraction = Fraction(1),
    keyframe_every: int | None = None,
    audio: float = 0.0,
    container: str | None = None,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Writes `frames` to `path` and returns it; the suffix picks the container unless `container` names one.

    Lossless, to the bit: `codec="ffv1"` in .mkv, .avi or .mov.

    Args:
      frames: uint8 [T, H, W, 3] RGB or [T, H, W, 4] RGBA, or frames made by PyAV, whose matrix and range are kept.
      fps: frames a second, unless `times` gives each frame's time in seconds; the first need not be 0.
      pix_fmt: what the codec stores; None: RGB where the codec has it, else 4:2:0.
      rotation: degrees counter-clockwise by which a player must turn the stored picture; `flip` mirrors it after that.
      sample_aspect: a stored pixel's width divided by its height.
      keyframe_every: frames from one key frame to the next; None leaves it to the codec.
      audio: seconds of a rising tone beside the picture.
    """
    with av.open(str(path), "w", format=container, options=dict(container_options or {})) as out:
        rate = Fraction(fps).limit_denominator(100_000)
        video = out.add_stream(codec, rate=rate, options=dict(codec_options or {}))
        context = video.codec_context
        context.pix_fmt = pix_fmt or _PIXEL_FORMATS.get(codec, "yuv420p")
        video.time_base = context.time_base = 1 / rate if times is None else _CLOCK
        context.sample_aspect_ratio = sample_aspect
        if keyframe_every is not None:
            context.gop_size = keyframe_every
        if rotation or flip:
            video.set_display_rotation(rotation, hflip=flip)
        sound = out.add_stream("aac", rate=_SOUND_RATE) if audio else None
        for index, frame in enumerate(frames):
            if not isinstance(frame, av.VideoFrame):
                layout = "rgba" if frame.shape[-1] == 4 else "rgb24"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), layout)
            if index == 0:
                context.width, context.height = frame.width, frame.height
                context.colorspace, context.color_range = frame.colorspace, frame.color_range
            frame.time_base = context.time_base
            frame.pts = index if times is None else round(times[index] / _CLOCK)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            _write_tone(out, sound, audio)
    return Path(path)


def write_sound(path: str | Path) -> Path:
    """Writes a second of a rising tone without any picture to `path` and returns it."""
    with av.open(str(path), "w") as out:
        _write_tone(out, out.add_stream("aac", rate=_SOUND_RATE), 1.0)
    return Path(path)


def _write_tone(out: OutputContainer, stream: AudioStream, seconds: float) -> None:
    time = np.arange(round(seconds * _SOUND_RATE)) / _SOUND_RATE
    tone = 0.5 * np.sin(2000 * time * (1 + time / seconds))  # it rises, so that no two packets are alike
    sound = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
    sound.sample_rate, sound.pts = _SOUND_RATE, 0
    for frame in av.AudioResampler("fltp", "mono", _SOUND_RATE, frame_size=1024).resample(sound):
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def numbered(count: int, height: int = 32, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3]; a frame carries its number as eight black or white bars, fit for any codec."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    bars = np.repeat(bits * 255, width // 8, axis=1).astype(np.uint8)
    return np.broadcast_to(bars[:, None, :, None], (count, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` wrote into frames [T, H, W, 3], whatever a codec made of them."""
    bars = frames.mean(axis=(1, 3)).reshape(len(frames), 8, -1).mean(axis=2) > 127
    return [int(number) for number in bars @ (1 << np.arange(8))]
