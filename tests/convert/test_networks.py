"""The converters, against the original networks: the same weights give the same numbers, layer by layer.

The originals' numbers are in golden/networks, made by golden/make_networks.py from weights drawn from their names.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.convert.test_pytorch import Storage, tensor, write
from tests.golden import drawn
from zoo import hub, kernels
from zoo.convert import __main__ as command
from zoo.convert import mobilenet_v2, movinet, resnet, resnet_3d, s3d, slowfast, x3d
from zoo.errors import UserError
from zoo.models.inception import BLOCKS
from zoo.models.slowfast import DEPTHS, slow_frames
from zoo.models.x3d import STAGES

type Layers = dict[str, jax.Array]


def of_video_resnet(model: Any, x: jax.Array) -> Layers:
    given = {"stem": model.stem(x)}
    x = given["stem"]
    for index, block in enumerate(model.blocks):
        x = given[f"layer{index // 2 + 1}.{index % 2}"] = block(x)
    return given


def of_resnet(model: Any, x: jax.Array) -> Layers:
    given = {}
    x = resnet_stem(model, x)
    depths = {8: (2, 2, 2, 2), 16: (3, 4, 6, 3)}[len(model.blocks)]
    names = [f"layer{level + 1}.{repeat}" for level, depth in enumerate(depths) for repeat in range(depth)]
    for name, block in zip(names, model.blocks, strict=True):
        x = given[name] = block(x)
    return given


def resnet_stem(model: Any, x: jax.Array) -> jax.Array:
    x = jnp.pad(nnx.relu(model.stem(x)), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return nnx.max_pool(x, (3, 3), (2, 2))


def of_mobilenet(model: Any, x: jax.Array) -> Layers:
    given = {"features.0": jax.nn.relu6(model.stem(x))}
    x = given["features.0"]
    for index, block in enumerate(model.blocks):
        x = given[f"features.{index + 1}"] = block(x)
    return given | {"features.18": jax.nn.relu6(model.head(x))}


def of_s3d(model: Any, x: jax.Array) -> Layers:
    given = {}

    def layer(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        given[f"features.{len(given)}"] = x = function(x)
        return x

    pad = functools.partial(jnp.pad, constant_values=-jnp.inf)

    def shrink(x: jax.Array) -> jax.Array:
        return nnx.max_pool(pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))), (1, 3, 3), (1, 2, 2))

    x = layer(shrink, layer(model.conv_1a, x))
    x = layer(shrink, layer(model.conv_2c, layer(model.conv_2b, x)))
    for name in BLOCKS:
        if name == "mixed_4b":
            x = layer(lambda x: nnx.max_pool(pad(x, ((0, 0), *[(1, 1)] * 3, (0, 0))), (3, 3, 3), (2, 2, 2)), x)
        elif name == "mixed_5b":
            x = layer(lambda x: nnx.max_pool(x, (2, 2, 2), (2, 2, 2)), x)
        x = layer(getattr(model, name), x)
    return given


def of_x3d(model: Any, x: jax.Array) -> Layers:
    given = {"blocks.0": model.stem(x)}
    x = given["blocks.0"]
    names = [
        f"blocks.{stage + 1}.res_blocks.{index}" for stage, (_, depth) in enumerate(STAGES) for index in range(depth)
    ]
    for name, block in zip(names, model.blocks, strict=True):
        x = given[name] = block(x)
    x = nnx.avg_pool(nnx.relu(model.head(x)), model.pools)
    return given | {"blocks.5.pool": nnx.relu(model.project(x))}


def of_slow(model: Any, x: jax.Array) -> Layers:
    given = {"blocks.0": model.slow.begin(x)}
    x = given["blocks.0"]
    names = [f"blocks.{stage + 1}.res_blocks.{index}" for stage, depth in enumerate(DEPTHS) for index in range(depth)]
    for name, block in zip(names, model.slow.blocks, strict=True):
        x = given[name] = block(x)
    return given


def of_slowfast(model: Any, x: jax.Array) -> Layers:
    slow, fast = model.begin(x)
    given = {"blocks.0.0": slow, "blocks.0.1": fast}
    for level in range(4):
        slow, fast = model.level(level, slow, fast)
        given |= {f"blocks.{level + 1}.0": slow, f"blocks.{level + 1}.1": fast}
    return given


def of_movinet(model: Any, x: jax.Array) -> Layers:
    """The base form layer by layer, and the stream form over a whole clip."""
    given = {"conv1": model.act(model.stem(x))}
    x, state = given["conv1"], model.initial_state(len(x), x.dtype, x.shape[2])
    levels = movinet._LEVELS[len(model.blocks)]
    names = [f"b{number}_l{repeat}" for number, level in enumerate(levels) for repeat in range(len(level.windows))]
    for name, block, before in zip(names, model.blocks, state["blocks"], strict=True):
        x = block.along(x, before, state["seen"])[0] if model.is_causal else block(x)
        given[f"blocks.{name}"] = x
    return given | {"conv7": model.act(model.project(x))}


class Case(NamedTuple):
    layout: Any
    shape: tuple[int, ...]
    layers: Callable[[Any, jax.Array], Layers]
    pools: Any = None  # of so small a clip, as in make_networks.py


CASES = {
    "r3d_18": Case(resnet_3d, (2, 8, 32, 32, 3), of_video_resnet),
    "mc3_18": Case(resnet_3d, (2, 8, 32, 32, 3), of_video_resnet),
    "r2plus1d_18": Case(resnet_3d, (2, 8, 32, 32, 3), of_video_resnet),
    "resnet18": Case(resnet, (2, 64, 96, 3), of_resnet),
    "resnet50": Case(resnet, (2, 64, 96, 3), of_resnet),
    "mobilenet_v2": Case(mobilenet_v2, (2, 64, 96, 3), of_mobilenet),
    "s3d": Case(s3d, (2, 24, 64, 96, 3), of_s3d, (2, 2, 2)),
    "x3d_xs": Case(x3d, (2, 4, 64, 96, 3), of_x3d, (3, 2, 2)),
    "slow_r50": Case(slowfast, (2, 4, 64, 96, 3), of_slow, (3, 2, 2)),
    "slowfast_r50": Case(slowfast, (2, 16, 64, 64, 3), of_slowfast, ((3, 2, 2), (15, 2, 2))),
    "movinet_a0": Case(movinet, (2, 6, 48, 48, 3), of_movinet),
    "movinet_a0_stream": Case(movinet, (2, 6, 48, 48, 3), of_movinet),
}


def abstract(name: str) -> nnx.Module:
    arch = name.removesuffix("_stream")
    return nnx.eval_shape(lambda: zoo.create(arch, **({} if arch == name else {"stream": True})))


def drawn_network(arch: str) -> Any:
    """Ours, with the weights that the original had, through the converter."""
    shapes, _ = drawn.read(arch)
    model = abstract(arch)
    tree = CASES[arch].layout.convert(drawn.weights(shapes), model)
    graph, weights, random = nnx.split(model, nnx.Not(nnx.RngState), ...)

    def fill(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
        return variable.replace(jnp.asarray(functools.reduce(lambda node, key: node[str(key)], path, tree)))

    model: Any = nnx.merge(graph, nnx.map_state(fill, weights), hub._concrete(random))
    model.eval()
    if CASES[arch].pools is not None:
        model.pools = CASES[arch].pools
    return model


@pytest.mark.parametrize("arch", CASES)
def test_each_tensor_of_the_original_has_its_place(arch: str):
    """Every array of ours is filled once, from an array of the right shape: `convert` raises otherwise."""
    shapes, _ = drawn.read(arch)
    tensors = {name: np.broadcast_to(np.float32(number), shape) for number, (name, shape) in enumerate(shapes.items())}
    counters = {f"{name[: -len('running_mean')]}num_batches_tracked": np.array(7) for name in shapes if "_mean" in name}
    tree = CASES[arch].layout.convert(tensors | counters, abstract(arch))
    found = sorted(float(leaf.flat[0]) for leaf in jax.tree.leaves(tree))
    assert found == list(range(len(shapes)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("arch", CASES)
def test_equals_the_original(arch: str, mode: str):
    _, golden = drawn.read(arch)
    case, model = CASES[arch], drawn_network(arch)
    model.set_attributes(nnx.BatchNorm, use_running_average=mode == "eval")
    x = drawn.clips(case.shape)

    @nnx.jit
    def run(model: Any, x: jax.Array) -> tuple[Layers, jax.Array]:
        return case.layers(model, x), model(x)

    with kernels.prefer("xla"):  # compiles several times as fast; the other forms have tests of their own
        layers, logits = run(model, x)
    assert {f"{mode}_{name}" for name in layers} | {f"{mode}_logits"} == {key for key in golden if mode in key}
    for name, found in layers.items():
        assert_close(drawn.summary(np.asarray(found)), golden[f"{mode}_{name}"], name)
    if arch == "x3d_xs":  # the original ends with softmax, averaged over places
        logits = jax.nn.softmax(logits)
    assert_close(np.asarray(logits), golden[f"{mode}_logits"], "logits")


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """The largest difference is at most 1e-4 of the largest value."""
    assert found.shape == expected.shape, what
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), what


def test_the_command_reads_the_published_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """PyTorchVideo's files hold the tensors in a dict beside others."""
    shapes, _ = drawn.read("x3d_xs")
    weights = drawn.weights(shapes)
    storages = {f"k{index}": array.tobytes() for index, array in enumerate(weights.values())}
    state = {}
    for key, (name, array) in zip(storages, weights.items(), strict=True):
        strides = tuple(step // 4 for step in array.strides)
        state[name] = tensor(Storage(key, array.size), 0, array.shape, strides)
    tree = {"model_state": state, "optimizer_state": {"momentum": state["blocks.5.proj.bias"]}, "epoch": 7}
    file = write(tmp_path / "X3D_XS.pyth", "zip", tree, **storages)
    command.main([str(file), "--to", "x3d_xs", "--out", str(tmp_path / "out")])
    assert str(tmp_path / "out") in capsys.readouterr().out
    restored: Any = hub.restore_weights(abstract("x3d_xs"), tmp_path / "out")
    np.testing.assert_array_equal(restored.logits.bias[...], weights["blocks.5.proj.bias"])
    filters = weights["blocks.3.res_blocks.2.branch2.conv_b.weight"]
    np.testing.assert_array_equal(restored.blocks[10].depthwise.conv.kernel[..., 0, 5], filters[5, 0])


def test_slowfast_s_slow_pathway_sees_the_frames_of_the_original_s_example():
    """torch.linspace(0, 31, 8).long()"""
    assert slow_frames(32).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    with pytest.raises(ValueError, match="a clip of 30 frames: slowfast takes a multiple of 4"):
        abstract("slowfast_r50")(np.zeros((1, 30, 32, 32, 3), np.float32))


def test_one_error_lists_what_is_missing_extra_and_misshapen():
    shapes, _ = drawn.read("r2plus1d_18")
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    del tensors["layer1.0.conv1.0.1.weight"]
    tensors["layer5.0.conv1.0.0.weight"] = np.zeros((3, 3), np.float32)
    tensors["fc.weight"] = np.zeros((101, 512), np.float32)
    with pytest.raises(UserError) as told:
        resnet_3d.convert(tensors, abstract("r2plus1d_18"))
    message = str(told.value)
    assert "\n" not in message
    for part in (
        "missing: blocks.0.first.space.norm.scale;",
        "unknown: layer5.0.conv1.0.0.weight;",
        "fc.weight (101, 512) gives (512, 101) instead of (512, 400) for logits.kernel",
    ):
        assert part in message
