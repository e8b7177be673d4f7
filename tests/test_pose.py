"""Squares around people, joints back in the frame's pixels, and what is drawn of them."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import zoo
from tests.clips import write_clip
from zoo import drawing, pose
from zoo.errors import UserError
from zoo.models.movenet import JOINTS
from zoo.pose import PoseFinder


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> PoseFinder:
    """A real card around a stand-in: every joint is in the middle of what is white."""

    def white(graph, state, squares):
        found = np.zeros((len(squares), len(JOINTS), 3), np.float32)
        for index, square in enumerate(squares):
            rows, columns = np.nonzero(square[..., 0] > 127)
            if len(rows):
                found[index] = (rows.mean() + 0.5) / 192, (columns.mean() + 0.5) / 192, 0.8
        return found

    monkeypatch.setattr(pose, "_run", white)
    monkeypatch.setattr(pose, "squares_a_call", lambda state: 2)
    return PoseFinder(zoo.card("movenet_lightning"), nnx.Linear(1, 1, rngs=nnx.Rngs(0)))


def spotted(height: int, width: int, *spots: tuple[int, int]) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    for x, y in spots:
        frame[y - 2 : y + 2, x - 2 : x + 2] = 255
    return frame


def test_joints_of_boxes(finder: PoseFinder):
    """Three people, of whom one stands at the border, in two calls of one shape."""
    spots = [(30, 40), (90, 20), (3, 3)]
    frame = spotted(80, 120, *spots)
    boxes = np.array([[x - 9, y - 14, x + 11, y + 12] for x, y in spots])
    found = finder.of_boxes(frame, boxes)
    assert found.shape == (3, 17, 3)
    np.testing.assert_allclose(found[:, 0, :2], spots, atol=0.7)
    np.testing.assert_allclose(found[..., 2], 0.8, rtol=1e-6)
    assert finder.of_boxes(frame, np.zeros((0, 4))).shape == (0, 17, 3)


def test_pose_of_a_video(finder: PoseFinder, tmp_path: Path):
    spots = [(20, 10), (70, 30), (50, 20)]
    frames = np.stack([spotted(40, 100, spot) for spot in spots])
    found = finder.pose(write_clip(tmp_path / "a.mkv", frames, codec="ffv1"))
    np.testing.assert_allclose(found[:, 5, :2], spots, atol=0.7)
    np.testing.assert_array_equal(finder.pose(frames), found)
    assert finder.pose(np.zeros((1, 1, 1, 3), np.uint8)).shape == (1, 17, 3)
    with pytest.raises(UserError, match="uint8"):
        finder.pose(np.zeros((2, 4, 4, 3)))


def test_every_joint_has_a_bone():
    assert {joint for bone in drawing.BONES for joint in bone} == set(range(len(JOINTS)))


def test_a_skeleton_is_drawn_where_it_is_seen():
    frame = np.zeros((100, 100, 3), np.uint8)
    joints = np.full((2, 17, 3), np.nan, np.float32)
    joints[0, :, :2], joints[0, :, 2] = 50, 0.1  # guesses
    joints[0, JOINTS.index("left hip")] = 20, 60, 0.9
    joints[0, JOINTS.index("left knee")] = 20, 90, 0.9
    boxes = np.array([[5.0, 5, 95, 95], [0, 0, 1, 1]])
    drawn = drawing.draw(frame, boxes, ["person 0.90", "car 0.50"], [1, 2], joints)
    assert not frame.any(), "the frame itself stays"
    assert tuple(drawn[75, 20]) == drawing.colour_of(1)
    assert not drawn[45:55, 45:55].any()
    assert drawing.colour_of(1) != drawing.colour_of(2)


def test_what_is_written_at_the_border_stays_within_the_frame():
    """A box at the right border has the same text, about as many dark pixels, as one in the middle."""
    frame = np.full((100, 200, 3), 128, np.uint8)
    inked = [
        (drawing.draw(frame, np.array([[left, 40, left + 20, 80]]), ["person 0.60 #2"], [1]) < 64).all(-1).sum()
        for left in (20, 179)
    ]
    assert inked[0] > 50
    assert inked[1] == pytest.approx(inked[0], rel=0.1)
