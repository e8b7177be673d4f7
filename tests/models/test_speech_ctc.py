"""The recogniser of speech: what it may know when, and that pieces are as the whole."""

import jax
import numpy as np
import pytest
from flax import nnx

from zoo import registry
from zoo.models.speech_ctc import STRIDE

SMALL = {"num_mels": 6, "features": 8, "hidden_features": 5, "num_classes": 4}


@pytest.fixture(scope="module")
def frames() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 12 * STRIDE, 6))


def test_in_pieces_it_is_as_in_one(frames):
    model = registry.create("speech_ctc", bidirectional=False, **SMALL)
    model.eval()
    whole = model(frames)
    assert whole.shape == (2, 12, 4)
    state, found = None, []
    for start, end in ((0, 1), (1, 2), (2, 7), (7, 12)):
        logits, state = model.along(frames[:, start * STRIDE : end * STRIDE], state)
        found.append(logits)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_the_one_that_streams_knows_nothing_ahead(frames, bidirectional):
    model = registry.create("speech_ctc", bidirectional=bidirectional, **SMALL)
    model.eval()
    assert model.is_causal == (not bidirectional)
    changed = np.abs(model(frames.at[:, 6 * STRIDE :].add(1.0)) - model(frames)).max(axis=(0, 2))
    assert (changed[:6].max() > 1e-4) == bidirectional
    assert changed[6:].min() > 1e-4


def test_a_step_is_of_the_frames_around_it(frames):
    """Without recurrent layers: convolutions of five frames and of five of their outputs, three frames a step."""
    model = registry.create("speech_ctc", num_layers=0, **SMALL)
    model.eval()
    changed = np.abs(np.asarray(model(frames.at[:, 5 * STRIDE + 1].add(1.0)) - model(frames))).max(axis=(0, 2))
    # Frame 16 is the middle of step 5's three, which sees from frame 15 - 1 - 2 to frame 17 + 1 + 2.
    assert set(np.flatnonzero(changed > 1e-6)) == {4, 5, 6}


def test_one_that_reads_backwards_has_no_answer_before_the_end(frames):
    model = registry.create("speech_ctc", **SMALL)
    with pytest.raises(ValueError, match="before the sound has ended"):
        model.along(frames)


def test_its_parameters_are_counted_by_hand():
    model = nnx.eval_shape(lambda: registry.create("speech_ctc"))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    convolutions = (5 * 40 + 1) * 128 + (5 * 128 + 1) * 128 + 2 * 2 * 128
    lstm = 2 * 4 * ((128 + 128 + 1) * 128) + 2 * 4 * ((256 + 128 + 1) * 128)
    assert count == convolutions + lstm + (256 + 1) * 28
