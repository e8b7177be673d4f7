"""Clips of real films: the same index gives the same clip, and no held-out film is ever seen in training."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from zoo.data import open_dataset, real_clips, real_films
from zoo.data.digit_motion import LABELS, DigitMotion
from zoo.data.real_clips import KINDS, RealClips
from zoo.data.real_films import FILMS
from zoo.errors import UserError


@pytest.fixture
def films(monkeypatch):
    """Films of noise in place of those out of packages, each of its own colour."""
    made = {
        film.name: np.random.default_rng(number).integers(
            4 * number, 4 * number + 4, (1 if film.split == "photo" else 80 + number, 50, 66, 3), np.uint8
        )
        for number, film in enumerate(FILMS)
    }
    monkeypatch.setattr(real_clips, "frames_of", lambda film: made[film.name])
    return made


def test_no_film_is_on_both_sides():
    sides = {split: {film.sha256 for film in FILMS if film.split == split} for split in ("train", "test")}
    both = sides["train"] & sides["test"]
    halves = [film for film in FILMS if film.sha256 in both]
    first, second = sorted(film.part for film in halves)
    assert first[1] < second[0], "with the cut between two shots left out"
    assert len(sides["test"]) >= 3
    assert len({film.name for film in FILMS}) == len(FILMS)


def test_a_clip_is_drawn_by_its_index_alone(films):
    source = open_dataset("real_clips", "train", num_frames=10, size=32)
    clips = [source[index]["video"] for index in range(12)]
    again = RealClips("train", num_frames=10, size=32)
    for index, clip in enumerate(clips):
        assert (clip.shape, clip.dtype) == ((10, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(clip, again[index]["video"])
    assert len({clip.tobytes() for clip in clips}) == 12
    assert not np.array_equal(RealClips("train", num_frames=10, size=32, seed=1)[0]["video"], clips[0])


def test_a_kind_of_clips_is_the_same_in_whatever_company(films):
    whole = RealClips("train", num_frames=10, size=32)
    alone = RealClips("train", num_frames=10, size=32, kinds=("object",))
    place = KINDS.index("object") + len(KINDS)
    np.testing.assert_array_equal(alone[1]["video"], whole[place]["video"])
    assert alone.identity(1) == whole.identity(place)
    identities = {whole.identity(index) for index in range(len(whole))}
    assert len(identities) == len(whole) == 200 * len(KINDS)
    with pytest.raises(UserError, match="real_clips has no kind of clips 'foto'"):
        RealClips("train", kinds=("foto",))


def test_held_out_clips_are_the_films_as_they_are(films):
    source = RealClips("test", num_frames=10, size=32, clips_a_film=3)
    names = [film.name for film in FILMS if film.split == "test"]
    assert len(source) == 3 * len(names)
    for index in range(len(source)):
        number, first = source.held_out[index]
        video = films[names[number]]
        means = video[first : first + 20 : 2].mean((1, 2, 3))
        np.testing.assert_allclose(source[index]["video"].mean((1, 2, 3)), means, atol=1)
    with pytest.raises(UserError, match="real_clips has no split 'validation'"):
        len(RealClips("validation"))


@pytest.mark.skipif("ZOO_REAL_CLIPS" not in os.environ, reason="ZOO_REAL_CLIPS names no folder of real clips")
def test_a_real_film_is_kept_at_its_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    path = Path(os.environ["ZOO_REAL_CLIPS"]) / "vtest.avi"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    film = real_films.Film("vtest", "test", "deb", "opencv-doc", "x/vtest.avi", digest, (0.0, 0.1))
    monkeypatch.setattr(real_films.download, "member", lambda *_, **__: path)
    frames = real_films.frames_of(film)
    assert frames.shape == (round(79.5 * 0.1 * 16), 200, 267, 3)
    wrong = real_films.Film("vtest", "test", "deb", "opencv-doc", "x/vtest.avi", "0" * 64)
    with pytest.raises(UserError, match="has the SHA-256"):
        real_films.frames_of(wrong)
    assert len(list((tmp_path / "clips").iterdir())) == 1


def test_motion_is_told_by_no_single_frame_and_by_two():
    source = DigitMotion("train", size=32, num_frames=3)
    centres, labels = [], []
    for index in range(600):
        item = source[index]
        rows, columns = (np.exp(2j * np.pi * np.arange(32) / 32) for _ in range(2))
        weight = item["video"][..., 0].astype(float)
        centres.append(
            [[np.angle((frame.sum(1) * rows).sum()), np.angle((frame.sum(0) * columns).sum())] for frame in weight]
        )
        labels.append(item["label"])
    centres, labels = np.array(centres) * 32 / (2 * np.pi), np.array(labels)
    for label in range(len(LABELS)):
        of_label = centres[labels == label]
        # On the circle a uniform place has no mean direction: |mean| is about 1 / sqrt(n).
        spread = np.abs(np.exp(2j * np.pi * of_label[:, 0] / 32).mean(0))
        assert (spread < 4 / np.sqrt(len(of_label))).all(), LABELS[label]
        moved = (of_label[:, 2] - of_label[:, 0] + 16) % 32 - 16
        angle, speed = 2 * np.pi * (label // 2) / 8, (2, 4)[label % 2]
        expected = 2 * speed * np.array([np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(moved.mean(0), expected, atol=0.4)
