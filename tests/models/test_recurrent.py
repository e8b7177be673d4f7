"""Recurrent layers and read-outs against NumPy, whole and in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import registry
from zoo.errors import UserError
from zoo.models.recurrent import READOUTS, Readout, SequenceClassifier


def classifier(**options):
    made = SequenceClassifier(6, 5, 4, **({"dropout": 0.0} | options), rngs=nnx.Rngs(0))
    made.eval()
    return made


def sequence(batch=2, time=7):
    return jax.random.normal(jax.random.key(1), (batch, time, 6))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_an_lstm_is_hochreiter_and_schmidhuber_s():
    made, x = classifier(), np.asarray(sequence())
    cell = made.recurrent.forward[0].cell
    kernel_in, kernel_state, bias = (
        np.asarray(value, np.float64)
        for value in (cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...])
    )
    h = c = np.zeros((2, 5))
    for step in x.swapaxes(0, 1):
        i, f, g, o = np.split(step @ kernel_in + h @ kernel_state + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    np.testing.assert_allclose(made.features(x), h, atol=1e-5)


@pytest.mark.parametrize("kind", READOUTS)
def test_a_read_out_is_of_the_steps_so_far(kind):
    readout = Readout(6, kind, rngs=nnx.Rngs(0))
    x = 30 * np.asarray(sequence())  # scores so large that their exponentials alone would overflow
    pooled, _ = readout(jnp.asarray(x))
    for step in range(x.shape[1]):
        so_far = x[:, : step + 1].astype(np.float64)
        if kind == "last":
            expected = so_far[:, -1]
        elif kind == "mean":
            expected = so_far.mean(1)
        else:
            assert readout.score is not None
            scores = so_far @ np.asarray(readout.score.kernel[...]) + np.asarray(readout.score.bias[...])
            weights = np.exp(scores - scores.max(1, keepdims=True))
            expected = (so_far * weights).sum(1) / weights.sum(1)
        np.testing.assert_allclose(pooled[:, step], expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["lstm", "gru"]),
    st.integers(0, 2),
    st.sampled_from(READOUTS),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_a_sequence_in_pieces_gives_what_it_gives_as_a_whole(cell, num_layers, readout, pieces):
    made = classifier(cell=cell, num_layers=num_layers, readout=readout)
    x = sequence(time=sum(pieces))
    whole, _ = made.along(x)
    np.testing.assert_allclose(whole[:, -1], made(x), atol=1e-5)
    parts, state = [], None
    for piece in jnp.split(x, np.cumsum(pieces)[:-1], axis=1):
        logits, state = made.along(piece, state)
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5)


def test_a_bidirectional_layer_sees_what_comes_and_refuses_to_answer_before():
    made = classifier(bidirectional=True)
    x = sequence()
    turned = made(x[:, ::-1])
    assert np.abs(made(x) - turned).max() > 1e-3
    one_way = classifier()
    outputs, _ = made.recurrent(x)
    changed, _ = made.recurrent(x.at[:, -1].add(1.0))
    assert np.abs(outputs[:, 0] - changed[:, 0]).max() > 1e-4
    np.testing.assert_array_equal(*(one_way.recurrent(y)[0][:, 0] for y in (x, x.at[:, -1].add(1.0))))
    with pytest.raises(ValueError, match="bidirectional"):
        made.along(x)


def test_no_frame_s_future_is_seen():
    model = registry.create("cnn_lstm", frame_cnn="cnn_2d", frame_cnn_options={"image_size": 16}, num_classes=3)
    model.eval()
    x = jax.random.normal(jax.random.key(0), (1, 5, 16, 16, 3))
    logits, _ = model.along(x)
    later, _ = model.along(x.at[:, 3:].add(1.0))
    np.testing.assert_array_equal(logits[:, :3], later[:, :3])
    assert np.abs(logits[:, 3:] - later[:, 3:]).min() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cell": "gur"}, "no recurrent cell is called 'gur'; did you mean gru?"),
        ({"readout": "max"}, "no read-out is called 'max'"),
        ({"frame_cnn": "resnet19"}, "did you mean resnet18"),
    ],
)
def test_a_wrong_option_is_told(options, words):
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        registry.create("cnn_lstm", **({"frame_cnn": "cnn_2d", "frame_cnn_options": {"image_size": 16}} | options))
