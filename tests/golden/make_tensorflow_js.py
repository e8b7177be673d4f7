"""CenterNet and MoveNet as TensorFlow.js graphs compute them, node by node in NumPy: it knows no JAX.

    python tests/golden/make_tensorflow_js.py <folder with centernet.json, .bin, movenet-lightning.json, .bin>

The folder is `models` in the npm package @vladmandic/human 3.3.6. Runs in the project's own environment (scikit-learn
for its two sample photos, Pillow) and writes centernet.npz and movenet.npz beside this script, for each of `photos()`:

    centernet   <photo>_detections [100, 6] (x1, y1, x2, y2, score, class), _scores [64, 64] the mean over the classes
                at every second place, _classes [80] the highest score of each, _sizes [16, 16, 4] at every eighth place
    movenet     <photo>_keypoints [17, 3] (y, x, score), _heat [48, 48] the keypoints' mean

The tests take `photos` and `drawn_weights` from here. Written from TensorFlow's definitions of its operations.
"""

import base64
import json
import sys
import zlib
from pathlib import Path

import numpy as np


def photos(size):
    """uint8 [size, size, 3] by name: middles of scikit-learn's sample photos (427x640), reduced or with black below."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    result = {}
    for name in ("china", "flower"):
        photo = load_sample_image(f"{name}.jpg")
        if size < 427:
            middle = photo[:, (640 - 427) // 2 :][:, :427]
            result[name] = np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.BOX))
        else:
            result[name] = np.zeros((size, size, 3), np.uint8)
            result[name][:427] = photo[:, 64 : 64 + size]
    return result


def weights_of(folder, name):
    """Nodes by name, and float32 or int32 weights by name, of a graph."""
    graph = json.loads((Path(folder) / f"{name}.json").read_text())
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    data, offset, weights = (Path(folder) / f"{name}.bin").read_bytes(), 0, {}
    for entry in graph["weightsManifest"][0]["weights"]:
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, stored, count, offset).reshape(entry["shape"])
        weights[entry["name"]] = array.astype(entry["dtype"])
        offset += count * stored.itemsize
    assert offset == len(data)
    return nodes, weights


def drawn_weights(shapes):
    """A float32 array for each name, which depends on the name alone; activations stay of order one."""
    weights = {}
    for name, shape in shapes.items():
        draw = np.random.RandomState(zlib.crc32(name.encode()))
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.2
        weights[name] = (draw.standard_normal(shape) * scale).astype(np.float32)
    return weights


def attribute(node, name, default=None):
    value = node.get("attr", {}).get(name)
    if value is None:
        return default
    if "s" in value:
        return base64.b64decode(value["s"]).decode()
    if "list" in value:
        found = value["list"]
        return [base64.b64decode(s).decode() for s in found.get("s", [])] or [int(i) for i in found.get("i", [])]
    return next(iter(value.values()))


def patches(x, window, node):
    """[B, H', W', kh, kw, C] of an image padded as TensorFlow's SAME or VALID says."""
    strides = attribute(node, "strides")[1:3]
    pads = [(0, 0)]
    for size, taps, stride in zip(x.shape[1:3], window, strides, strict=True):
        pad = max((-(-size // stride) - 1) * stride + taps - size, 0) if attribute(node, "padding") == "SAME" else 0
        pads.append((pad // 2, pad - pad // 2))
    found = np.lib.stride_tricks.sliding_window_view(np.pad(x, [*pads, (0, 0)]), window, axis=(1, 2))
    return found[:, :: strides[0], :: strides[1]].transpose(0, 1, 2, 4, 5, 3)


def convolution(node, x, kernel, bias=None):
    windows = patches(x, kernel.shape[:2], node)
    if "epthwise" in node["op"]:
        y = np.zeros(windows.shape[:3] + x.shape[-1:], np.float32)
        for row in range(kernel.shape[0]):
            for column in range(kernel.shape[1]):
                y += windows[:, :, :, row, column] * kernel[row, column, :, 0]
    else:
        y = windows.reshape(*windows.shape[:3], -1) @ kernel.reshape(-1, kernel.shape[-1])
    if bias is not None:
        y = y + bias
    for name in attribute(node, "fused_ops", [])[1:]:
        y = {"Relu": lambda y: np.maximum(y, 0), "Relu6": lambda y: np.clip(y, 0, 6)}[name](y)
    return y


def resized(node, x, size):
    """TensorFlow's bilinear resizing, in either of its two conventions."""
    assert not attribute(node, "align_corners", False)
    for axis, wanted in zip((1, 2), size, strict=True):
        count = x.shape[axis]
        at = np.arange(wanted, dtype=np.float32) * np.float32(count / wanted)
        if attribute(node, "half_pixel_centers", False):
            at = (np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(count / wanted) - 0.5
        at = np.clip(at, 0, count - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if each == axis else 1 for each in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, count - 1), axis) * share
    return x


def strided_slice(node, x, begin, end, step):
    shrink, begun, ended = (int(attribute(node, f"{name}_mask", 0)) for name in ("shrink_axis", "begin", "end"))
    cut = []
    for axis in range(len(begin)):
        if shrink >> axis & 1:
            cut.append(int(begin[axis]))
        else:
            low = None if begun >> axis & 1 else int(begin[axis])
            cut.append(slice(low, None if ended >> axis & 1 else int(end[axis]), int(step[axis])))
    return x[tuple(cut)]


def gather_nd(x, indices):
    return x[tuple(np.moveaxis(indices, -1, 0))]


def cast(node, x):
    return x.astype({"DT_FLOAT": np.float32, "DT_INT32": np.int32}[attribute(node, "DstT")])


def top(x, count):
    best = np.argsort(-x, axis=-1, kind="stable")[..., : int(count)]
    return [np.take_along_axis(x, best, -1), best]


def max_pool(node, x):
    low = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(low, (3, 3), axis=(1, 2)).max(axis=(-2, -1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PLAIN = {
    "Identity": lambda x: x,
    "Mul": np.multiply,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "RealDiv": np.divide,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Equal": np.equal,
    "Sqrt": np.sqrt,
    "Sigmoid": sigmoid,
    "SquaredDifference": lambda a, b: (a - b) ** 2,
    "Relu": lambda x: np.maximum(x, 0),
    "Relu6": lambda x: np.clip(x, 0, 6),
    "Mean": lambda x, axes: x.mean(axis=tuple(axes), keepdims=True),
    "Reshape": lambda x, shape: x.reshape(shape),
    "ExpandDims": lambda x, axis: np.expand_dims(x, int(axis)),
    "ConcatV2": lambda *given: np.concatenate(given[:-1], axis=int(given[-1])),
    "GatherNd": gather_nd,
    "GatherV2": lambda x, indices, axis: x.take(indices, int(axis)),
    "TopKV2": top,
    "ArgMax": lambda x, axis: x.argmax(int(axis)).astype(np.int32),
}
WITH_NODE = {
    **dict.fromkeys(("_FusedConv2D", "Conv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), convolution),
    "ResizeBilinear": resized,
    "StridedSlice": strided_slice,
    "Cast": cast,
    "MaxPool": max_pool,
    "Pack": lambda node, *given: np.stack(given, int(attribute(node, "axis", 0))),
    "Unpack": lambda node, x: [np.take(x, i, int(attribute(node, "axis", 0))) for i in range(int(node["count"]))],
    "Squeeze": lambda node, x: np.squeeze(x, tuple(int(axis) for axis in attribute(node, "squeeze_dims", [0]))),
}


def run(nodes, weights, image, wanted):
    """The values of the wanted nodes for an image float32 [1, H, W, 3]."""
    values = {name: [array] for name, array in weights.items()}

    def value(name):
        name, _, port = name.partition(":")
        if name not in values:
            node = nodes[name]
            if node["op"] == "Placeholder":
                values[name] = [image]
                return image
            given = [value(each) for each in node["input"]]
            if node["op"] == "Unpack":
                node = node | {"count": given[0].shape[int(attribute(node, "axis", 0))]}
            done = PLAIN[node["op"]](*given) if node["op"] in PLAIN else WITH_NODE[node["op"]](node, *given)
            values[name] = done if isinstance(done, list) else [done]
        return values[name][int(port or 0)]

    sys.setrecursionlimit(10_000)
    return [np.asarray(value(name)) for name in wanted]


def main(folder):
    results = {}
    graph = weights_of(folder, "centernet")
    for name, photo in photos(512).items():
        wanted = ["tower_0/keypoints", "tower_0/wh", "tower_0/detections"]
        scores, sizes, detections = run(*graph, photo[None].astype(np.float32), wanted)
        results |= {f"{name}_detections": detections.reshape(100, 6), f"{name}_sizes": sizes[0, ::8, ::8]}
        results |= {f"{name}_scores": scores[0, ::2, ::2].mean(-1), f"{name}_classes": scores[0].max((0, 1))}
        print(name, detections.reshape(100, 6)[:5].round(2).tolist())
    save("centernet", results)

    results = {}
    graph = weights_of(folder, "movenet-lightning")
    for name, photo in photos(192).items():
        wanted = ["Identity", "StatefulPartitionedCall/Sigmoid"]
        keypoints, heat = run(*graph, photo[None].astype(np.int32), wanted)
        results |= {f"{name}_keypoints": keypoints.reshape(17, 3), f"{name}_heat": heat[0].mean(-1)}
        print(name, keypoints.reshape(17, 3).round(2).tolist())
    save("movenet", results)


def save(name, arrays):
    path = Path(__file__).with_name(f"{name}.npz")
    np.savez_compressed(path, **{key: array.astype(np.float32) for key, array in arrays.items()})


if __name__ == "__main__":
    main(sys.argv[1])
