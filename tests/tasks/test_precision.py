"""With `compute_dtype="bfloat16"` no task's training step convolves float32 clips."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from zoo import kernels, registry
from zoo.configs import TrainConfig
from zoo.optimizers import make_optimizer
from zoo.parallel import Parallel
from zoo.precision import as_parameters
from zoo.tasks import TASKS
from zoo.train_step import make_state, make_train_step

_VIDEO = {"video": ((2, 4, 16, 16, 3), "uint8")}
_DIGITS = {"video": ((2, 4, 16, 16, 1), "uint8")}
_TAUGHT = {"logits": ((2, 5), "float32")}
_LATENTS = {"codec_patch": 2, "codec_widths": (8, 8), "denoiser_options": {"widths": (32, 32)}}

# Of each task a network, its options, the task's, and a batch.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, tuple[tuple[int, ...], str]]]] = {
    "classification": ("r2plus1d_18", {"num_classes": 5}, {}, _VIDEO | {"label": ((2,), "int32")}),
    "detection": (
        "centernet",
        {"num_classes": 5},
        {},
        {
            "image": ((2, 32, 32, 3), "uint8"),
            "boxes": ((2, 3, 4), "float32"),
            "box_classes": ((2, 3), "int32"),
        },
    ),
    "embedding": ("embedder", {"num_classes": 5, "backbone": "r3d_18"}, {}, _VIDEO),
    "generation": (
        "latent_video_gen",
        _LATENTS,
        {"clip_shape": (4, 16, 16, 1), "know_frames": 0.5},
        _DIGITS | {"classes": ((2, 10), "float32")},
    ),
    "prediction": ("convlstm", {"widths": (8,), "kernel_size": 3}, {"context": 2}, _DIGITS),
    "reconstruction": ("video_vae", {"patch": 2, "widths": (8, 8)}, {}, _DIGITS),
    "speech": (
        "speech_ctc",
        {"num_mels": 80, "features": 8, "hidden_features": 8, "num_classes": 5},
        {},
        {"sound": ((2, 16000), "int16"), "samples": ((2,), "int32"), "symbols": ((2, 4), "int32")},
    ),
    "tagging": (
        "nextvlad",
        {"clusters": 4, "groups": 4, "hidden_features": 16, "num_classes": 5},
        {},
        {"features": ((2, 3, 1152), "float32"), "frames": ((2,), "int32"), "classes": ((2, 5), "float32")},
    ),
    "windowed_i3d": (
        "i3d_lstm",
        {"num_classes": 5, "hidden_features": 8},
        {},
        _TAUGHT | {"features": ((2, 3, 2048), "float32")},
    ),
    "framewise_i3d": (
        "inception_lstm",
        {"num_classes": 5, "hidden_features": 8},
        {},
        _TAUGHT | {"video": ((2, 8, 32, 32, 3), "uint8"), "activations": ((2, 4, 1, 1, 1024), "float16")},
    ),
}


def _products(jaxpr: Any) -> Iterator[tuple[str, set[Any]]]:
    """The kind of each product in a program, and in all that it calls, and its factors' dtypes."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.primitive.name, {factor.aval.dtype for factor in equation.invars}
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner := getattr(inner, "jaxpr", inner), "eqns"):
                yield from _products(inner)


def test_each_task_has_a_case():
    assert sorted(CASES) == sorted(TASKS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_multiplied_is_bfloat16(name):
    arch, options, told, shapes = CASES[name]
    config = TrainConfig(arch, name, "none", steps=10, batch_size=2, learning_rate=1e-3, compute_dtype="bfloat16")
    optimizer = make_optimizer(config)
    graphs = []

    def fresh() -> tuple[Any, Any]:
        graph, state, random = make_state(registry.create(arch, **options), optimizer)
        graphs.append(graph)
        return state, random

    def step(state: Any, random: Any, batch: Any) -> Any:
        made = make_train_step(config, TASKS[name](**told), optimizer, graphs[0], random, (), Parallel())
        return made(state, batch)

    batch = {key: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for key, (shape, dtype) in shapes.items()}
    with kernels.prefer("xla"):
        program = jax.make_jaxpr(step)(*jax.eval_shape(fresh), batch)
    products = list(_products(program.jaxpr))
    wide = [name for name, factors in products if name == "conv_general_dilated" and jnp.float32 in factors]
    assert not wide
    # What remains in float32 is small, such as what tells a noise level, and a spectrogram's filters, or is the loss.
    narrow = sum(factors == {jnp.dtype(jnp.bfloat16)} for _, factors in products)
    assert narrow >= 0.75 * len(products) > 0


def test_a_network_is_given_what_its_parameters_are():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    assert as_parameters(model, jnp.ones((1, 2))).dtype == jnp.bfloat16
    assert as_parameters(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.float32
