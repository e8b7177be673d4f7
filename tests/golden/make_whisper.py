"""Makes networks/whisper.npz: what OpenAI's Whisper of a small size makes of drawn weights, in float64.

    python3.11 -m venv original && original/bin/pip install torch==2.14.1 openai-whisper==20250625
    original/bin/python -m tests.golden.make_whisper

state_dict are the names and shapes of its tensors as JSON, logits what follows each of the tokens.
"""

import json

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper

from tests.golden import drawn

MELS, FEATURES, LAYERS, VOCABULARY = 80, 128, 2, 60
TOKENS = [3, 50, 7, 7, 21]


def spectrogram() -> np.ndarray:
    """float64 [3000, MELS]"""
    return drawn.tensor("spectrogram", (3000, MELS)).astype(np.float64) * 3


if __name__ == "__main__":
    torch.set_num_threads(1)
    sizes = ModelDimensions(
        MELS, 1500, FEATURES, FEATURES // 64, LAYERS, VOCABULARY, 448, FEATURES, FEATURES // 64, LAYERS
    )
    model = Whisper(sizes).eval()
    shapes = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in drawn.weights(shapes).items()})
    model.double()
    for module in model.modules():  # which its own code computes in float32
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = lambda x, module=module: torch.nn.functional.layer_norm(
                x, module.normalized_shape, module.weight, module.bias, module.eps
            )
    with torch.no_grad():
        logits = model(torch.from_numpy(spectrogram().T[None]), torch.tensor([TOKENS]))
    np.savez_compressed(
        drawn.FOLDER / "whisper.npz", state_dict=np.array(json.dumps(shapes)), logits=logits[0].double().numpy()
    )
    print(logits.std())
