"""Whisper and Silero VAD with their published weights, against the originals (golden/make_speech.py)."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.data.log_mel import BEFORE, HOP, SAMPLE_RATE, SECONDS, causal_log_mel, log_mel, mel_filters
from zoo.models.whisper import Whisper


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "golden" / "speech.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def sound(golden) -> np.ndarray:
    """float32 [1, samples of 30 seconds]."""
    padded = np.zeros((1, SECONDS * SAMPLE_RATE), np.float32)
    padded[0, : len(golden["samples"])] = golden["samples"] / 32768
    return padded


def test_the_filter_bank_is_the_published_one(golden):
    np.testing.assert_allclose(mel_filters(80), golden["filters"], atol=1e-7)


def test_log_mel(golden, sound):
    mel = np.asarray(jax.jit(log_mel)(sound))
    assert mel.shape == (1, SECONDS * SAMPLE_RATE // HOP, 80)
    np.testing.assert_allclose(mel[0, :300:10], golden["mel"], atol=2e-5)


def test_the_quietest_is_eighty_decibels_below_the_loudest(sound):
    mel = np.asarray(log_mel(sound[:, : 2 * SAMPLE_RATE]))
    assert mel.min() == pytest.approx(mel.max() - 8 / 4)
    np.testing.assert_allclose(np.asarray(log_mel(np.zeros((1, SAMPLE_RATE), np.float32))), (-10 + 4) / 4)


def test_causal_log_mel(sound):
    """By NumPy, frame by frame; and in two pieces it is as in one."""
    samples = sound[:, : BEFORE + 50 * HOP]
    whole = np.asarray(causal_log_mel(samples, 40))
    assert whole.shape == (1, 50, 40)
    window = np.hanning(401)[:-1]
    for frame in (0, 17, 49):
        end = BEFORE + (frame + 1) * HOP
        power = np.abs(np.fft.rfft(samples[0, end - 400 : end] * window)) ** 2
        np.testing.assert_allclose(whole[0, frame], np.log10(power @ mel_filters(40) + 1e-6) / 3 + 1, atol=1e-4)
    pieces = [causal_log_mel(samples[:, start * HOP : BEFORE + end * HOP], 40) for start, end in ((0, 20), (20, 50))]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)


@pytest.mark.slow
def test_whisper_equals_the_original(golden, sound):
    model = zoo.load("whisper_tiny_en").model
    graph, weights = nnx.split(model)
    encoded = jax.jit(lambda weights, mel: nnx.merge(graph, weights).encode(mel))(weights, log_mel(sound))
    np.testing.assert_allclose(encoded[0, ::25, ::4], golden["encoded"], atol=1e-3)

    @jax.jit
    def decoded(weights: nnx.State, encoded: jax.Array, tokens: jax.Array) -> jax.Array:
        model = nnx.merge(graph, weights)
        return model.decode(tokens, model.remember(encoded, tokens.shape[1]), np.int32(0))[0]

    logits = np.asarray(decoded(weights, encoded, golden["tokens"]))[0]
    np.testing.assert_allclose(logits[:, ::50], golden["logits"], atol=1e-3)
    np.testing.assert_array_equal(logits.argmax(-1), golden["best"])


def test_tokens_one_by_one_are_as_all_at_once():
    model = Whisper(layers=2, features=128, num_mels=4, vocabulary=50, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    encoded = rng.standard_normal((2, model.audio_context, 128)).astype(np.float32)
    tokens = rng.integers(0, 50, (2, 5))
    whole, _, looked = model.decode(tokens, model.remember(encoded, 5), np.int32(0))
    cache = model.remember(encoded, 9)  # with room for more
    for place in range(5):
        logits, cache, where = model.decode(tokens[:, place : place + 1], cache, np.int32(place))
        np.testing.assert_allclose(logits[:, 0], whole[:, place], atol=1e-5)
        np.testing.assert_allclose(where[:, :, :, 0], looked[:, :, :, place], atol=1e-6)
    np.testing.assert_allclose(looked.sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_voice_detector_equals_the_original(golden, sound):
    model = zoo.load("silero_vad").model
    steps = len(golden["chances"])
    samples = sound[:, : steps * model.window]
    np.testing.assert_allclose(jax.nn.sigmoid(model(samples))[0], golden["chances"], atol=1e-5)
    # In two pieces it is as in one.
    first, state = model.along(samples[:, : 20 * model.window])
    second, _ = model.along(samples[:, 20 * model.window :], state)
    np.testing.assert_allclose(jax.nn.sigmoid(np.concatenate([first[0], second[0]])), golden["chances"], atol=1e-5)
