"""Moving digits: motion by brute force, disjoint digits, and items that depend on their index alone."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data import digit_sheet, loader, open_dataset
from zoo.data.digits import handwritten_digits
from zoo.data.moving_digits import MOVING_MNIST, TEST_SEQUENCES, TEST_SHA256, MovingDigits, bounce, rebound
from zoo.errors import UserError


@given(st.floats(0, 1), st.floats(-3, 3), st.integers(1, 30), st.floats(4, 20))
def test_bounce_is_reflection_at_both_walls(start, velocity, num_frames, room):
    position, speed, path = start * room, velocity, []
    for _ in range(num_frames):
        path.append(position)
        position += speed
        if position < 0 or position > room:
            position = -position if position < 0 else 2 * room - position
            speed = -speed
    # The triangle wave counts from its top: a start beyond `room` is a ball on its way back.
    np.testing.assert_allclose(bounce(np.array(start * room), velocity, num_frames, room), path, atol=1e-9)


def test_training_and_test_digits_are_disjoint():
    train, test = (handwritten_digits(split, 8)[0].reshape(-1, 64) for split in ("train", "test"))
    assert len(train) + len(test) == 1797
    # A few digits of the collection are identical drawings; none of them stands on both sides by index.
    assert len(test) == 360
    everything = np.concatenate([train, test])
    assert len(everything) == 1797


def test_items_depend_on_seed_split_and_index_alone():
    first, again = MovingDigits("train")[7], MovingDigits("train")[7]
    assert (first["video"] == again["video"]).all()
    for other in (MovingDigits("train")[8], MovingDigits("test")[7], MovingDigits("train", seed=1)[7]):
        assert (first["video"] != other["video"]).any()


def test_a_clip_shows_its_digits_moving_and_whole():
    source = MovingDigits("test", num_frames=12, max_digits=1)
    images, labels = handwritten_digits("test", 16)
    for index in range(20):
        item = source[index]
        (digit,) = np.flatnonzero(item["classes"])
        ink = item["video"].reshape(12, -1).sum(-1, dtype=int)
        assert len(set(ink)) == 1, "one digit never leaves the frame"
        assert ink[0] in images[labels == digit].reshape(-1, 256).sum(-1, dtype=int)
        assert any((a != b).any() for a, b in zip(item["video"], item["video"][1:], strict=False))


def test_counts_name_every_digit():
    items = [MovingDigits("train")[i] for i in range(200)]
    counts = np.array([item["classes"].sum() for item in items])
    assert set(counts) == {1, 2, 3}
    assert all(item["video"].dtype == np.uint8 and item["video"].shape == (8, 32, 32, 1) for item in items)


def test_the_loader_goes_on_where_its_state_says():
    source = MovingDigits("train", max_digits=1)
    batches = loader.training_batches(source, 4, seed=3)
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    expected = [next(batches)["video"] for _ in range(3)]
    other = loader.training_batches(source, 4, seed=3)
    other.set_state(state)
    for video in expected:
        assert (next(other)["video"] == video).all()


def test_an_evaluation_sees_each_item_once_in_batches_of_one_shape():
    source = MovingDigits("test", length=10)
    batches = list(loader.evaluation_batches(source, 4, 7))
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 1, 1, 0]]
    videos = np.concatenate([batch["video"] for batch in batches])[:7]
    assert all((video == source[i]["video"]).all() for i, video in enumerate(videos))


@pytest.fixture
def a_sheet(monkeypatch):
    """A sheet whose digits are all alike but for their number, in place of the one out of a package."""
    numbers = np.arange(5000).reshape(50, 100)
    made = np.kron(numbers % 250 + 1, np.ones((20, 20))).astype(np.uint8)
    monkeypatch.setattr(digit_sheet, "sheet", lambda: made)
    digit_sheet.sheet_digits.cache_clear()
    yield
    digit_sheet.sheet_digits.cache_clear()


def test_the_sheet_s_digits_are_split_and_framed(a_sheet):
    (train, train_labels), (test, test_labels) = map(digit_sheet.sheet_digits, ("train", "test"))
    assert (train.shape, test.shape) == ((4000, 28, 28), (1000, 28, 28))
    numbers = np.arange(5000)
    for images, labels, held_out in ((train, train_labels, False), (test, test_labels, True)):
        of = numbers[(numbers % 5 == 0) == held_out]
        np.testing.assert_array_equal(images[:, 4, 4], of % 250 + 1)
        np.testing.assert_array_equal(labels, of // 500)
        assert not images[:, :4].any()
        assert not images[:, :, 24:].any()
        assert (images[:, 4:24, 4:24] == images[:, 4:5, 4:5]).all()


def test_the_protocol_of_moving_mnist(a_sheet):
    """Two squares of 20x20 that move 3.6 pixels a step, from wall to wall of their boxes' room of 36."""
    source = open_dataset("moving_digits", "test", **MOVING_MNIST)
    for index in range(20):
        item = source[index]
        assert item["video"].shape == (20, 64, 64, 1)
        assert item["classes"].sum() == 2
    alone = MovingDigits("test", **MOVING_MNIST | {"min_digits": 1, "max_digits": 1})
    for index in range(20):
        video = alone[index]["video"][..., 0]
        corners = np.array([np.argwhere(frame)[0] for frame in video])
        assert corners.min() >= 4
        assert corners.max() <= 40
        # A wall is ten steps away from the other, so somewhere three steps go straight; places are whole pixels.
        farthest = np.hypot(*(corners[3:] - corners[:-3]).T).max()
        assert abs(farthest - 3 * 3.6) < 1.5


def test_a_wall_gives_another_way_by_chance():
    """A point goes straight on until it stands at a wall, and leaves that into the room as it was told to."""
    told = iter(np.random.default_rng(0).uniform(-3, 3, (60, 1, 2)))
    drawn = []

    def anew():
        drawn.append(next(told))
        return drawn[-1]

    start, velocity, room = np.array([[3.0, 5.0]]), np.array([[-1.0, 2.0]]), 9.0
    path = rebound(start, velocity, 50, room, anew)[:, 0]
    assert (path >= 0).all()
    assert (path <= room).all()
    steps, hits = np.diff(path, axis=0), 0
    for time in range(1, 49):
        ahead, at_wall = path[time + 1], (path[time] == 0) | (path[time] == room)
        ends_inside = (ahead > 0) & (ahead < room)  # else a step is as long as there is room
        if not at_wall.any():
            np.testing.assert_allclose(steps[time][ends_inside], steps[time - 1][ends_inside], atol=1e-9)
            continue
        hits += 1
        new = drawn[time - 1][0]
        expected = np.where(at_wall, np.where(path[time] == 0, 1, -1) * np.abs(new), new)
        np.testing.assert_allclose(steps[time][ends_inside], expected[ends_inside], atol=1e-9)
    assert hits > 5


def test_stochastic_digits_leave_the_walls_at_other_speeds(a_sheet):
    alone = open_dataset("stochastic_moving_digits", "test")
    again = open_dataset("stochastic_moving_digits", "test")
    assert (alone[3]["video"] == again[3]["video"]).all()
    one = MovingDigits("test", **MOVING_MNIST | {"max_digits": 1, "min_digits": 1, "speed": (1, 4), "stochastic": True})
    lengths = set()
    for index in range(30):
        corners = np.array([np.argwhere(frame)[0] for frame in one[index]["video"][..., 0]])
        assert corners.min() >= 4
        assert corners.max() <= 40
        lengths |= {round(float(length)) for length in np.hypot(*(corners[2:] - corners[:-2]).T)}
    assert len(lengths) > 5


def test_how_many_digits_a_clip_has():
    """One or two: a single drawn number is 2 in half of the clips, the lesser of two in a quarter."""
    for fewer, share in ((True, 0.25), (False, 0.5)):
        source = MovingDigits("train", num_frames=1, size=16, max_digits=2, fewer_likelier=fewer)
        pairs = np.mean([source[index]["classes"].sum() == 2 for index in range(2000)])
        # Four standard deviations of 2,000 drawn clips.
        assert abs(pairs - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_other_digits_are_told():
    with pytest.raises(UserError, match="moving_digits has no digits 'letters'; it has uci, opencv, mnist, fashion"):
        open_dataset("moving_digits", "test", digits="letters")


@pytest.mark.slow
def test_the_test_set_is_the_one_that_is_stated(monkeypatch):
    with Image.open(Path(os.environ["ZOO_REAL_CLIPS"]) / "digits.png") as image:
        whole = np.asarray(image.convert("L"))
    monkeypatch.setattr(digit_sheet, "sheet", lambda: whole)
    digit_sheet.sheet_digits.cache_clear()
    source = open_dataset("moving_digits", "test", **MOVING_MNIST)
    digest = hashlib.sha256()
    for index in range(TEST_SEQUENCES):
        digest.update(source[index]["video"].tobytes())
    digit_sheet.sheet_digits.cache_clear()
    assert digest.hexdigest() == TEST_SHA256
