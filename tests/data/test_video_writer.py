"""What is written can be read back: frames, times, odd and tiny sizes; and after an interruption too."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import numbered, numbers, write_clip
from zoo.data.decode import open_video
from zoo.data.video_writer import FORMATS, VideoWriter
from zoo.errors import UserError


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_frames_and_times_come_back(tmp_path: Path, suffix: str):
    times, frames = [0.0, 0.04, 0.5, 0.52, 1.7], numbered(5)
    with VideoWriter(tmp_path / f"a{suffix}") as video:
        for seconds, frame in zip(times, frames, strict=True):
            video.write(seconds, frame)
    with open_video(tmp_path / f"a{suffix}") as reader:
        found = list(reader.frames())
    assert numbers(np.stack([frame for _, frame in found])) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([seconds for seconds, _ in found], times, atol=2e-3)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("shape", [(1, 1), (33, 47), (17, 200)])
def test_odd_and_tiny_frames(tmp_path: Path, shape: tuple[int, int]):
    with VideoWriter(tmp_path / "a.mp4") as video:
        video.write(0, np.full((*shape, 3), 200, np.uint8))
    with open_video(tmp_path / "a.mp4") as reader:
        ((_, frame),) = reader.frames()
    assert frame.shape[0] >= shape[0]
    assert frame.shape[1] >= shape[1]
    assert np.abs(frame.astype(int) - 200).max() < 12


def test_an_interrupted_run_leaves_what_was_written(tmp_path: Path):
    def work() -> None:
        with VideoWriter(tmp_path / "a.mp4") as video:
            for index, frame in enumerate(numbered(7)):
                video.write(index / 10, frame)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with open_video(tmp_path / "a.mp4") as reader:
        assert numbers(np.stack([frame for _, frame in reader.frames()])) == list(range(7))


def test_a_killed_run_leaves_a_file_that_plays(tmp_path: Path):
    script = """if True:
        import os, sys
        from pathlib import Path
        import numpy as np
        from zoo.data.video_writer import VideoWriter
        with VideoWriter(Path(sys.argv[1])) as video:
            for index in range(400):
                video.write(index / 25, np.full((32, 32, 3), index % 256, np.uint8))
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.mp4")], timeout=300)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    with open_video(left) as reader:
        assert len(list(reader.frames())) >= 100


def copied(source: Path, path: Path, frames: int | None = None) -> None:
    """Writes a video's pictures and sound; of so many frames, then an interruption."""
    with open_video(source) as reader, VideoWriter(path, reader.sound()) as video:
        for index, (seconds, frame) in enumerate(reader.frames()):
            if index == frames:
                raise KeyboardInterrupt
            video.write(seconds, frame)


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Seconds from the first picture on and content of each packet of sound from there on, by PyAV alone."""
    with av.open(str(path)) as file:
        stamps = [packet.pts * packet.time_base for packet in file.demux(video=0) if packet.size]
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
        timed = [(float(packet.pts * packet.time_base - min(stamps)), bytes(packet)) for packet in packets]
    return [(seconds, content) for seconds, content in timed if seconds >= 0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("first", [0.0, 0.3])
def test_sound_is_copied_in_time(tmp_path: Path, suffix: str, first: float):
    times = (first + np.arange(20) / 10).tolist()
    source = write_clip(tmp_path / "source.mkv", numbered(20), times=times, audio=2.5)
    copied(source, tmp_path / f"a{suffix}")
    expected, found = sound_of(source), sound_of(tmp_path / f"a{suffix}")
    assert [content for _, content in found] == [content for _, content in expected]
    assert len(found) > 15
    np.testing.assert_allclose([time for time, _ in found], [time for time, _ in expected], atol=2e-3)
    with open_video(tmp_path / f"a{suffix}") as reader:
        assert numbers(np.stack([frame for _, frame in reader.frames()])) == list(range(20))


def test_sound_of_a_broadcast(tmp_path: Path):
    """Its AAC has headers in the packets, which MP4 takes none of."""
    source = write_clip(tmp_path / "source.ts", numbered(20), fps=10, audio=2.0)
    copied(source, tmp_path / "a.mp4")
    samples = []
    for path in (source, tmp_path / "a.mp4"):
        with av.open(str(path)) as file:
            samples.append(np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]))
    packet = 1024  # the encoder's lead-in comes before the picture; what follows it lacks its overlap
    np.testing.assert_allclose(samples[1][packet:], samples[0][2 * packet :], atol=1e-6)
    assert np.abs(samples[1]).max() > 0.4


def test_an_interrupted_run_leaves_its_sound_too(tmp_path: Path):
    source = write_clip(tmp_path / "source.mp4", numbered(20), fps=10, audio=2.0)
    with pytest.raises(KeyboardInterrupt):
        copied(source, tmp_path / "a.mp4", frames=11)
    (*_, (last, _)) = sound_of(tmp_path / "a.mp4")
    assert 0.8 < last <= 1.0, "as far as the pictures"


def test_sound_that_a_format_cannot_hold_is_left_out(tmp_path: Path):
    source = write_clip(tmp_path / "source.mp4", numbered(5), audio=0.5)
    with pytest.warns(UserWarning, match="has no sound: .webm takes opus, vorbis, and this is aac"):
        copied(source, tmp_path / "a.webm")
    with av.open(str(tmp_path / "a.webm")) as file:
        assert not file.streams.audio


def test_without_frames_nothing_is_left(tmp_path: Path):
    with VideoWriter(tmp_path / "a.mp4"):
        pass
    assert not list(tmp_path.iterdir())


def test_mistakes(tmp_path: Path):
    for name in ("a.avi", "a", "a.txt"):
        with pytest.raises(UserError, match="no format that is written here"):
            VideoWriter(tmp_path / name)
    with pytest.raises(UserError, match="there is no folder"):
        VideoWriter(tmp_path / "none" / "a.mp4")
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        VideoWriter(tmp_path / "b.mp4")
