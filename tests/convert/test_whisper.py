"""OpenAI's files of Whisper: another size than the packaged one, as its own code computes with it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from tests.convert.test_pytorch import Storage, tensor, write
from tests.golden import drawn
from zoo import hub
from zoo.convert import whisper

# As in make_whisper.py.
SIZE = {"layers": 2, "features": 128, "vocabulary": 60}
TOKENS = [3, 50, 7, 7, 21]


def test_a_published_file_gives_the_logits_of_the_original(tmp_path: Path):
    """Beside the tensors such a file holds the sizes, as numbers."""
    shapes, golden = drawn.read("whisper")
    storages, state = {}, {}
    for index, (name, array) in enumerate(drawn.weights(shapes).items()):
        storages[f"k{index}"] = array.tobytes()
        strides = tuple(step // array.itemsize for step in array.strides)
        state[name] = tensor(Storage(f"k{index}", array.size), 0, array.shape, strides)
    file = write(tmp_path / "small.pt", "zip", {"dims": {"n_mels": 80}, "model_state_dict": state}, **storages)

    abstract = nnx.eval_shape(lambda: zoo.create("whisper", **SIZE))
    hub.save_weights(whisper.convert(whisper.read(file), abstract), tmp_path / "out")
    model = hub.restore_weights(abstract, tmp_path / "out")
    spectrogram = drawn.tensor("spectrogram", (3000, 80)) * 3
    logits = nnx.jit(lambda model, *inputs: model(*inputs))(model, jnp.asarray(spectrogram)[None], jnp.array([TOKENS]))
    np.testing.assert_allclose(logits[0], golden["logits"], atol=1e-4)
