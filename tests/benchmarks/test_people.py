"""People counted by eye against a detector: the judgement by hand, and the published figures."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import people, tables


def test_judgement_by_hand():
    boxes = np.array([[0, 0, 10, 20], [1, 1, 11, 21], [50, 50, 60, 70], [80, 0, 90, 20]], float)
    points = np.array([[5, 10], [5, 95], [85, 10]])
    row, pairs = people.judged(boxes, points, np.array([True, True, False]))
    # The first person is found twice, the second not; the third does not count, and so its box is not wrong either.
    assert row == {"people": 2, "boxes": 4, "right": 1, "missed": 1, "wrong": 2}
    assert pairs.tolist() == [[0, 0], [3, 2]]
    row, _ = people.judged(np.zeros((0, 4)), points, np.array([True, True, False]))
    assert row == {"people": 2, "boxes": 0, "right": 0, "missed": 2, "wrong": 0}


def test_two_people_side_by_side_share_no_box():
    boxes = np.array([[0, 0, 20, 20]], float)
    row, _ = people.judged(boxes, np.array([[8, 10], [12, 10]]), np.array([True, True]))
    assert (row["right"], row["missed"], row["wrong"]) == (1, 1, 0)


def test_the_published_table_is_of_the_published_marks():
    rows = tables.read(tables.RESULTS / "vtest-people.csv", "frame")
    marks = people.marks()
    assert len(marks) == 20
    for frame, (_, counts) in marks.items():
        assert int(rows[str(frame),]["people"]) == counts.sum()
    total = {name: int(value) for name, value in rows["all",].items() if name != "frame"}
    assert total["right"] / total["people"] >= 0.8
    assert total["right"] / (total["right"] + total["wrong"]) >= 0.9


@pytest.mark.slow
def test_the_figures_come_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """On opencv-doc's vtest.avi in the folder that ZOO_REAL_CLIPS names, of its first eight marked frames."""
    first = dict(list(people.marks().items())[:8])
    monkeypatch.setattr(people, "marks", lambda: first)
    people.main(["--video", str(Path(os.environ["ZOO_REAL_CLIPS"]) / "vtest.avi")])
    (found,) = re.findall(r"recall ([\d.]+), precision ([\d.]+),", capsys.readouterr().out)
    rows = [tables.read(tables.RESULTS / "vtest-people.csv", "frame")[str(frame),] for frame in first]
    seen, right, wrong = (sum(int(row[name]) for row in rows) for name in ("people", "right", "wrong"))
    assert [float(figure) for figure in found] == pytest.approx([right / seen, right / (right + wrong)], abs=0.03)
