"""What the original networks make of drawn weights: torchvision, PyTorchVideo and MoViNet-pytorch, in float64.

    python -m tests.golden.make_networks [NAME ...]

Runs in an environment of its own, Python 3.11 with torch 2.14.1, torchvision 0.29.1, and pytorchvideo 0.1.5, fvcore and
iopath without what they require for reading videos; for MoViNet einops and github.com/Atze00/MoViNet-pytorch at commit
c2d1edf; it knows no JAX. Writes networks/<name>.npz:

    state_dict                names and shapes of the network's tensors, as JSON, without the counters of batches
    eval_logits               of the clip in `CASES`, in evaluation; X3D's are the probabilities that it ends with
    train_logits              the same with the batch's own statistics, without dropout
    eval_LAYER, train_LAYER   `drawn.summary` of what each of the layers gave

and networks/preprocessing.npz, what torchvision's preset for video makes of `drawn.frames()`, and
networks/multiply_adds.npz, those of the convolutions and dense layers for each of `CLIPS`.

The last pooling windows are as wide as a clip of the true size; for these small ones they are `POOLS`.
"""

import json
import re
import sys

import numpy as np
import torch
import torchvision
from torch import nn

from tests.golden import drawn

# The last layer still has several places for each channel to take statistics of.
CASES = {
    "r3d_18": (2, 8, 32, 32, 3),
    "mc3_18": (2, 8, 32, 32, 3),
    "r2plus1d_18": (2, 8, 32, 32, 3),
    "s3d": (2, 24, 64, 96, 3),
    "resnet18": (2, 64, 96, 3),
    "resnet50": (2, 64, 96, 3),
    "mobilenet_v2": (2, 64, 96, 3),
    "x3d_xs": (2, 4, 64, 96, 3),
    "slow_r50": (2, 4, 64, 96, 3),
    "slowfast_r50": (2, 16, 64, 64, 3),
    "movinet_a0": (2, 6, 48, 48, 3),
    "movinet_a0_stream": (2, 6, 48, 48, 3),
}
# What the published figures are measured on.
CLIPS = {
    "r3d_18": (16, 112, 112, 3),
    "mc3_18": (16, 112, 112, 3),
    "r2plus1d_18": (16, 112, 112, 3),
    "s3d": (128, 224, 224, 3),
    "resnet18": (224, 224, 3),
    "resnet50": (224, 224, 3),
    "mobilenet_v2": (224, 224, 3),
    "x3d_xs": (4, 182, 182, 3),
    "x3d_s": (13, 182, 182, 3),
    "x3d_m": (16, 256, 256, 3),
    "slow_r50": (8, 256, 256, 3),
    "slowfast_r50": (32, 256, 256, 3),
}
POOLS = {
    "s3d": (2, 2, 2),
    "x3d_xs": (3, 2, 2),
    "slow_r50": (3, 2, 2),
    "slowfast_r50": ((3, 2, 2), (15, 2, 2)),
}

RESIDUAL = r"stem|layer\d\.\d"
LAYERS = {
    "s3d": r"features\.\d+",
    "mobilenet_v2": r"features\.\d+",
    "x3d_xs": r"blocks\.0|blocks\.\d\.res_blocks\.\d+|blocks\.5\.pool",
    "slow_r50": r"blocks\.0|blocks\.\d\.res_blocks\.\d+",
    "slowfast_r50": r"blocks\.[0-4]",
    "movinet_a0": r"conv1|blocks\.b\d_l\d|conv7",
    "movinet_a0_stream": r"conv1|blocks\.b\d_l\d|conv7",
}


def original(name: str) -> nn.Module:
    if name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d"):
        return getattr(torchvision.models.video, name)()
    if name in ("resnet18", "resnet50", "mobilenet_v2"):
        return getattr(torchvision.models, name)()
    if name.startswith("movinet"):
        from movinets import MoViNet
        from movinets.config import _C

        config, stream = getattr(_C.MODEL, f"MoViNet{name[8:10].upper()}"), name.endswith("stream")
        return MoViNet(config, causal=stream, conv_type="2plus1d" if stream else "3d", tf_like=True)
    from pytorchvideo.models import hub

    return getattr(hub, name)()


def build(name: str) -> nn.Module:
    """The original network, with its last pooling made for the small clip."""
    network = original(name)
    if name == "s3d":
        network.avgpool = nn.AvgPool3d(POOLS[name], stride=1)
    elif name == "x3d_xs":
        network.blocks[5].pool.pool = nn.AvgPool3d(POOLS[name], stride=1)
    elif name == "slow_r50":
        network.blocks[5].pool = nn.AvgPool3d(POOLS[name], stride=1)
    elif name == "slowfast_r50":
        network.blocks[5].pool = nn.ModuleList([nn.AvgPool3d(pool, stride=1) for pool in POOLS[name]])
    return network


def layers_of(name: str, network: nn.Module) -> dict[str, nn.Module]:
    pattern = LAYERS.get(name, RESIDUAL)
    return {path: module for path, module in network.named_modules() if re.fullmatch(pattern, path)}


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.detach().movedim(1, -1).numpy()


def pathways(clip: torch.Tensor) -> list[torch.Tensor]:
    """What SlowFast's own example makes of a clip `[B, C, T, H, W]`: every fourth frame or so, and all of them."""
    length = clip.shape[2]
    chosen = torch.linspace(0, length - 1, length // 4).long()
    return [clip.index_select(2, chosen.to(clip.device)), clip]


def run(name: str) -> dict[str, np.ndarray]:
    network = build(name).double()
    state = network.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    results = {"state_dict": np.array(json.dumps(shapes))}
    clip = torch.from_numpy(drawn.clips(CASES[name])).double().movedim(-1, 1)
    for mode in ("eval", "train"):
        tensors = {key: torch.from_numpy(value).double() for key, value in drawn.weights(shapes).items()}
        network.load_state_dict(network.state_dict() | tensors)
        network.train(mode == "train")
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        if name.startswith("movinet"):
            network.clean_activation_buffers()
        hooks = []
        for path, module in layers_of(name, network).items():

            def keep(module, inputs, output, key=f"{mode}_{path}"):
                for index, x in enumerate(output if isinstance(output, list) else [output]):
                    results[f"{key}.{index}" if isinstance(output, list) else key] = drawn.summary(channels_last(x))

            hooks.append(module.register_forward_hook(keep))
        with torch.no_grad():
            logits = network(pathways(clip) if name == "slowfast_r50" else clip)
        results[f"{mode}_logits"] = logits.numpy().astype(np.float32)
        for hook in hooks:
            hook.remove()
        print(name, mode, len(results), float(logits.std()))
    return results


def multiply_adds() -> dict[str, np.ndarray]:
    """Counted on tensors that have shapes and no numbers."""
    counts = {}
    for name, shape in CLIPS.items():
        counts[name] = np.int64(0)

        def count(module, inputs, output, name=name):
            features = module.weight.shape[0]
            counts[name] += output.numel() * (module.weight.numel() // features)

        network = original(name).eval().to("meta")
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
                module.register_forward_hook(count)
        clip = torch.empty(1, *shape, device="meta").movedim(-1, 1)
        network(pathways(clip) if name == "slowfast_r50" else clip)
        print(name, counts[name] / 1e9)
    return counts


def preprocessed() -> dict[str, np.ndarray]:
    from torchvision.transforms._presets import VideoClassification

    preset = VideoClassification(crop_size=(14, 14), resize_size=(16, 22))
    clip = preset(torch.from_numpy(drawn.frames()).movedim(-1, 1))
    return {"clip": clip.permute(1, 2, 3, 0).numpy()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    drawn.FOLDER.mkdir(exist_ok=True)
    others = {"preprocessing": preprocessed, "multiply_adds": multiply_adds}
    for chosen in sys.argv[1:] or [*CASES, *others]:
        arrays = others[chosen]() if chosen in others else run(chosen)
        np.savez_compressed(drawn.FOLDER / f"{chosen}.npz", **arrays)
