"""Epochs by sampler: how often each class comes, against the formula, and each example as often as the next."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import loader
from zoo.data.long_tail import LongTailedDigits
from zoo.data.resampling import SAMPLERS, epoch_of
from zoo.errors import UserError


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), sampler=st.sampled_from(sorted(SAMPLERS)))
def test_classes_come_as_often_as_their_sampler_says(counts, sampler):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    epoch = epoch_of(labels, sampler, seed=1)
    seen = np.bincount(labels[epoch], minlength=len(counts))
    largest = max(counts)
    roots = np.sqrt(np.array(counts) * largest)
    wanted = {"instance": counts, "square_root": roots, "balanced": [largest] * len(counts)}
    np.testing.assert_allclose(seen, wanted[sampler], atol=0.5)
    times = np.bincount(epoch, minlength=len(labels))
    for label in range(len(counts)):
        assert np.ptp(times[labels == label]) <= 1
    assert times.min() >= 1, "nothing is left out"


def test_a_balanced_loader_shows_every_class_alike():
    source = LongTailedDigits("train", num_frames=1, size=8, largest=50, imbalance=50)
    batches = loader.training_batches(source, 100, seed=0, sampler="balanced")
    seen = np.bincount(np.concatenate([next(batches)["label"] for _ in range(5)]), minlength=10)
    np.testing.assert_array_equal(seen, 50)
    with pytest.raises(UserError, match="no sampler is called 'fair'; there are instance, square_root, balanced"):
        loader.training_batches(source, 100, seed=0, sampler="fair")


def test_long_tailed_digits():
    source = LongTailedDigits("train")
    assert (source.counts[0], source.counts[-1], len(source)) == (500, 5, sum(source.counts))
    ratios = np.array(source.counts[1:]) / source.counts[:-1]
    np.testing.assert_allclose(ratios, 100 ** (-1 / 9), rtol=0.1)
    held_out = LongTailedDigits("test")
    assert held_out.counts == [60] * 10
    clip = held_out[599]
    assert (clip["video"].shape, int(clip["label"])) == ((4, 32, 32, 3), 9)
    np.testing.assert_array_equal(clip["video"], LongTailedDigits("test")[599]["video"])
    assert not np.array_equal(clip["video"], held_out[598]["video"])


def test_examples_are_drawn_anew_each_epoch_and_the_position_says_which():
    class Source:
        def __len__(self):
            return 3

        def draw(self, index, rng):
            return {"index": np.array(index), "drawn": rng.integers(2**31)}

    batches = loader.training_batches(Source(), 3, seed=0)
    first, position, second = next(batches), batches.get_state(), next(batches)
    assert set(first["index"]) == set(second["index"]) == {0, 1, 2}
    assert len({*first["drawn"], *second["drawn"]}) == 6
    batches.set_state(position)
    np.testing.assert_array_equal(next(batches)["drawn"], second["drawn"])
