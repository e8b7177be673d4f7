"""Squares cover the frame, objects cut in one are whole in another, and boxes come back to where they were."""

import numpy as np
import pytest

from zoo.data.tiles import Tiles
from zoo.errors import UserError


def tiles(number: int, size: int = 64) -> Tiles:
    return Tiles(size=size, tiles=number, threshold=0.5, most_overlap=0.5)


@pytest.mark.parametrize("shape", [(576, 768), (768, 576), (100, 100), (2160, 3840), (1, 1), (7, 500)])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_squares_cover_the_frame_with_room_to_spare(shape: tuple[int, int], number: int):
    height, width = shape
    squares = tiles(number).squares(height, width)
    assert squares[0].tolist() == [0, 0, max(shape)]
    assert (len(squares) == 1) == (number == 1)
    if number == 1:
        return
    side = squares[1, 2]
    for start, length in ((0, width), (1, height)):
        starts = np.unique(squares[1:, start])
        assert starts[0] == 0
        assert starts[-1] + side >= length
        assert (np.diff(starts) <= side * 2 / 3 + 1).all(), "two neighbours share a third"


def test_what_is_cut_comes_back():
    rng = np.random.default_rng(0)
    wanted = tiles(3)
    frame = np.zeros((90, 160, 3), np.uint8)
    squares = wanted.squares(90, 160)
    for _ in range(20):
        left, top = rng.integers(0, 140), rng.integers(0, 70)
        frame[:] = 0
        frame[top : top + 20, left : left + 20] = 255
        seen = wanted.cut(frame, squares)
        boxes = np.zeros((len(squares), 1, 4))
        for index, square in enumerate(seen):
            rows, columns = np.nonzero(square[..., 0] > 127)
            if len(rows):
                boxes[index, 0] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        found, useful = wanted.joined(boxes, squares, 90, 160)
        assert useful.sum() >= 2, "the whole frame and one more square show all of it"
        np.testing.assert_allclose(found[useful], [[left, top, left + 20, top + 20]] * useful.sum(), atol=2.6)


def test_black_beside_a_frame_that_is_no_square():
    seen = tiles(1).cut(np.full((30, 60, 3), 200, np.uint8), tiles(1).squares(30, 60))
    assert (seen[0, :32] == 200).all()
    assert (seen[0, 32:] == 0).all()


def test_no_tiles_is_a_mistake():
    with pytest.raises(UserError, match="0 tiles show nothing"):
        tiles(0)
