"""What is written can be read back: frames, times, odd and tiny sizes; and after an interruption too."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.clips import numbered, numbers
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
