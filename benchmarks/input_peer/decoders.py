"""Other libraries' way to a training clip, as one would write it: decode, take frames, crop, resize, mirror.

Runs under a Python of its own, with PyAV, decord or torchcodec. A clip is asked for by its path, the times of its
frames in seconds, the box that is cut out and whether it is mirrored, and comes as uint8 [T, size, size, 3].
"""

import random
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "torch_peer"))
from serving import serve

_PREFERRED = 8  # clips in a batch


def pyav(path, times):
    """Every frame from the first on, in order, until the last one wanted."""
    import av

    frames = []
    with av.open(path, "r") as container:
        wanted = list(times)
        shown = None
        for frame in container.decode(video=0):  # pyright: ignore[reportAttributeAccessIssue]
            while wanted and shown is not None and frame.time > wanted[0] + 1e-3:
                frames.append(shown)
                wanted.pop(0)
            if not wanted:
                break
            shown = frame
        frames.extend([shown] * len(wanted))
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def decord(path, times):
    import decord as library

    reader = library.VideoReader(path, num_threads=0)
    rate = reader.get_avg_fps()
    places = [min(len(reader) - 1, int(t * rate + 1e-3)) for t in times]
    return list(reader.get_batch(places).asnumpy())


def torchcodec(path, times):
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=0)
    first, last = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds - 1e-3
    frames = decoder.get_frames_played_at([min(last, first + t) for t in times])
    return list(frames.data.permute(0, 2, 3, 1).numpy())


READERS = {"pyav": pyav, "decord": decord, "torchcodec": torchcodec}


def hello():
    versions = {"python": sys.version.split()[0]}
    for name, module in (("pyav", "av"), ("decord", "decord"), ("torchcodec", "torchcodec.decoders")):
        try:
            __import__(module)
            versions[name] = version(module.partition(".")[0])
        except (ImportError, RuntimeError, OSError):  # a library that finds no FFmpeg says so in its own way
            continue
    return {"versions": versions}


def turn(reader, paths, lengths, seconds, seed, num_frames, frame_rate, size, short, largest):
    """How many clips of files of these lengths in seconds, each from anywhere in one, come in so many seconds."""
    draw, read = random.Random(seed), READERS[reader]
    begun, count = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        batch = []
        for _ in range(_PREFERRED):
            which = draw.randrange(len(paths))
            start = draw.uniform(0, max(0.0, lengths[which] - num_frames / frame_rate))
            frames = read(paths[which], [start + number / frame_rate for number in range(num_frames)])
            height, width = frames[0].shape[:2]
            side = size * min(height, width) / (short * draw.uniform(1, largest))
            left, top = draw.random() * (width - side), draw.random() * (height - side)
            box = (left, top, left + side, top + side)
            made = [np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BILINEAR, box)) for f in frames]
            clip = np.stack(made)
            batch.append(clip[:, :, ::-1] if draw.random() < 0.5 else clip)
        np.stack(batch)
        count += len(batch)
    return {"clips": count, "seconds": time.monotonic() - begun}


if __name__ == "__main__":
    serve({"hello": hello, "turn": turn})
