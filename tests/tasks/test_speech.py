"""CTC's loss against all paths, what is hidden, and that speech can be learnt."""

import dataclasses
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax, logsumexp

from zoo import registry
from zoo.configs import experiment
from zoo.data import open_dataset
from zoo.data.log_mel import HOP, SAMPLE_RATE
from zoo.optimizers import make_optimizer
from zoo.tasks.speech import STEP, Speech, ctc_loss, hidden_in_part


def test_the_loss_is_that_of_all_paths():
    rng = np.random.default_rng(0)
    logits, steps = rng.normal(size=(4, 5, 3)).astype(np.float32), np.array([5, 4, 5, 3])
    symbols = np.array([[1, 2, 0], [1, 1, 0], [0, 0, 0], [2, 0, 0]])
    losses = ctc_loss(jnp.asarray(logits), jnp.asarray(steps), jnp.asarray(symbols))
    for loss, of_item, count, text in zip(losses, logits, steps, symbols, strict=True):
        chances = log_softmax(of_item[:count].astype(float), axis=-1)
        wanted = tuple(text[text > 0].tolist())
        paths = itertools.product(range(3), repeat=int(count))
        said = [path for path in paths if tuple(s for s, _ in itertools.groupby(path) if s) == wanted]
        total = logsumexp([sum(chances[step, symbol] for step, symbol in enumerate(path)) for path in said])
        assert float(loss) == pytest.approx(-total / (len(wanted) + 1), rel=1e-4)


def test_what_is_hidden_is_stretches():
    x = jax.random.normal(jax.random.key(0), (3, 60, 20))
    masked = np.asarray(hidden_in_part(x, jax.random.key(1)))
    changed = masked != np.asarray(x)
    for item, where, original in zip(masked, changed, np.asarray(x), strict=True):
        rows, columns = where.all(axis=1), where.all(axis=0)
        np.testing.assert_array_equal(where, rows[:, None] | columns)
        assert rows.sum() <= 16
        assert columns.sum() <= 8
        np.testing.assert_allclose(item[where], original.mean(), atol=1e-6)
    assert changed.any()


def tones(texts: list[list[int]]) -> dict[str, np.ndarray]:
    """A batch in which every symbol is a tone of a third of a second."""
    length = SAMPLE_RATE // 3 // STEP * STEP
    sound = np.zeros((len(texts), 4 * length), np.int16)
    symbols = np.zeros((len(texts), 4), np.int32)
    for row, of_row, text in zip(sound, symbols, texts, strict=True):
        for place, symbol in enumerate(text):
            wave = np.sin(2 * np.pi * 400 * symbol * np.arange(length) / SAMPLE_RATE) * np.hanning(length)
            row[place * length : (place + 1) * length] = 8000 * wave
        of_row[: len(text)] = text
    samples = np.array([length * len(text) for text in texts], np.int32)
    return {"sound": sound, "samples": samples, "symbols": symbols}


def learnt(model: nnx.Module, batch: dict[str, np.ndarray], steps: int) -> list[float]:
    """The losses of learning one batch by heart, as the experiment learns."""
    config = dataclasses.replace(experiment("speech_ctc"), steps=steps)
    task, optimizer = Speech(), nnx.Optimizer(model, make_optimizer(config), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        value, gradients = nnx.value_and_grad(lambda model: task.loss(model, batch, key)[0])(model)
        optimizer.update(model, gradients)
        return value

    return [float(step(model, optimizer, jax.random.key(number))) for number in range(steps)]


@pytest.mark.slow
def test_tones_are_learnt():
    batch = tones([[1, 2, 3], [3, 1], [2], [1, 1, 2, 3]])
    model = registry.create("speech_ctc", num_mels=16, features=32, hidden_features=16, num_classes=4, num_layers=1)
    losses = learnt(model, batch, 60)
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    answers = Speech().evaluate(model, batch, jax.random.key(0))
    assert answers["loss"].shape == (4,)
    assert answers["answers"]["heard"].shape == (4, 4)
    # What lies behind the sound does not count.
    longer = batch | {"sound": np.pad(batch["sound"], ((0, 0), (0, 30 * HOP)))}
    causal = registry.create("speech_ctc", num_mels=16, bidirectional=False, num_classes=4)
    causal.eval()
    ours, theirs = (Speech().evaluate(causal, each, jax.random.key(0))["loss"] for each in (batch, longer))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_figures_of_all_items():
    said = np.array([[16, 15, 1, 8, 16], [22, 17, 0, 0, 0]])  # "on go", "up"
    assert Speech().over_all({"said": said, "heard": said}) == {"word_error_rate": 0, "texts_right": 1}
    heard = np.array([[16, 15, 0, 0, 0], [22, 17, 0, 0, 0]])
    assert Speech().over_all({"said": said, "heard": heard}) == {
        "word_error_rate": pytest.approx(1 / 3),
        "texts_right": 0.5,
    }


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_a_few_spoken_texts_are_learnt_by_heart(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    data = open_dataset("spoken_commands", "train", speakers=1)
    items = [data[index] for index in range(4)]
    batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
    model = registry.create("speech_ctc", dropout=0.0)
    learnt(model, batch, 180)
    model.eval()
    answers = Speech().evaluate(model, batch, jax.random.key(0))["answers"]
    assert Speech().over_all(jax.device_get(answers))["word_error_rate"] < 0.1
