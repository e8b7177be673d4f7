"""Spoken commands: what an item is, that it depends on its number alone, and that held-out voices stay so."""

import dataclasses
import shutil

import numpy as np
import pytest

from zoo.data import open_dataset, synthesised_speech
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.spoken_commands import MOST_WORDS, SAMPLES, VOCABULARY, text_of
from zoo.data.synthesised_speech import SPEAKERS, Saying, speakers
from zoo.errors import UserError

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {split: open_dataset("spoken_commands", split, speakers=1) for split in ("train", "test")}


def test_who_is_held_out():
    train, test = speakers("train"), speakers("test")
    assert sorted([*train, *test]) == sorted(SPEAKERS)
    assert test == ("aunty", "boris", "david", "Marco", "Mario", "rob", "sandro", "Storm", "anika", "m5", "m8", "croak")
    for family in ("iven", "steph", "klatt"):
        assert len({split for split in (train, test) if any(name.startswith(family) for name in split)}) == 1
    with pytest.raises(UserError, match="no split of speech is called 'validation'"):
        speakers("validation")


@needs_espeak
def test_an_item(data):
    texts = []
    for index in range(60):
        item = data["train"][index]
        assert (item["sound"].dtype, item["sound"].shape) == (np.int16, (SAMPLES,))
        assert not item["sound"][item["samples"] :].any()
        texts.append(text_of(item["symbols"]))
        words = texts[-1].split()
        assert len(words) <= MOST_WORDS
        assert set(words) <= set(VOCABULARY)
        assert item["samples"] > 0.15 * len(words) * SAMPLE_RATE
    assert 2 < np.mean([len(text.split()) for text in texts]) < 3.5
    assert len(set(texts)) > 50


@needs_espeak
def test_an_item_depends_on_its_number_alone(data):
    again = open_dataset("spoken_commands", "train", speakers=1)
    for index in (5, 3, 2**30):
        for name, value in data["train"][index].items():
            np.testing.assert_array_equal(again[index][name], value)
    other = open_dataset("spoken_commands", "train", speakers=1, seed=1)
    assert not np.array_equal(other[3]["sound"], again[3]["sound"])
    assert not np.array_equal(data["test"][3]["sound"], again[3]["sound"])


@needs_espeak
def test_noise_is_as_loud_as_asked(data):
    """Of the same items without and with noise: the difference has the asked-for power below the words."""
    clean, noisy = (dataclasses.replace(data["test"], channel=False, decibels=(level, level)) for level in (90, 10))
    found = []
    for index in range(30):
        ours, theirs = (source[index]["sound"].astype(float) for source in (clean, noisy))
        if not text_of(clean[index]["symbols"]) or np.array_equal(ours, theirs):
            continue  # nobody speaks, or there is no noise by chance
        # Both are as loud as each other at the loudest sample, so the words in them are not.
        share = np.dot(ours, theirs) / np.dot(ours, ours)
        spoken = np.abs(ours) > 0.01 * np.abs(ours).max()
        noise = np.square(theirs - share * ours)[: clean[index]["samples"]].mean()
        found.append(10 * np.log10(share**2 * np.square(ours[spoken]).mean() / noise))
    assert len(found) > 20
    np.testing.assert_allclose(np.median(found), 10, atol=0.3)
    np.testing.assert_allclose(found, 10, atol=2.5)  # what the noise has in common with the words by chance


@needs_espeak
def test_everything_is_said_once(data, monkeypatch):
    def speaks(saying, place):
        raise AssertionError(f"{saying} is said again")

    synthesised_speech.speech.cache_clear()
    monkeypatch.setattr(synthesised_speech, "say", speaks)
    # The fixture's cache is there as long as the module: ZOO_CACHE is as it was then.
    assert open_dataset("spoken_commands", "train", speakers=1)[0]["samples"] > 0


@needs_espeak
def test_a_saying_is_cut_to_what_is_said(tmp_path):
    sound = synthesised_speech.say(Saying("espeak-ng", "en-us+m1", "stop", ("-s", "150")), tmp_path / "said.wav")
    assert sound.dtype == np.int16
    assert 0.2 < len(sound) / SAMPLE_RATE < 0.8
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told_in_one_line(monkeypatch):
    with pytest.raises(UserError, match="no synthesiser is called festival; there are espeak-ng, flite"):
        open_dataset("spoken_commands", "train", synthesisers=("festival",))
    synthesised_speech.speech.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match=r"espeak-ng, which speaks, is not here; install it \(Debian: apt install espeak"
    ):
        open_dataset("spoken_commands", "train")
