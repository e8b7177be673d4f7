"""Every registered architecture at a tiny size: shapes, one descent step, saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import fresh
from zoo import hub, kernels, registry

SMALL_SIMVP = {"frames": 2, "spatial_features": 4, "temporal_features": 8, "num_blocks": 2, "halvings": 1}
NOISY_CLIP = [(2, 4, 16, 16, 1), (2,), (2, 5), (2, 4)]  # its time, classes and known frames

# Options and the inputs, or their shapes; an architecture without a row fails the first test.
TINY = {
    "centernet": ({"num_classes": 5}, [(1, 32, 32, 3)]),
    "cnn_2d": ({"num_classes": 5, "image_size": 16}, [(2, 16, 16, 3)]),
    "cnn_lstm": ({"num_classes": 5, "frame_cnn": "cnn_2d", "hidden_features": 8}, [(2, 3, 16, 16, 3)]),
    "convlstm": ({"widths": (8,), "kernel_size": 3}, [(1, 3, 8, 8, 1)]),
    "efficientnet_lite0": ({"num_classes": 5}, [(2, 32, 32, 3)]),
    "embedder": ({"num_classes": 5, "backbone": "r3d_18"}, [(1, 4, 16, 16, 3)]),
    "frame_lstm": ({"in_features": 6, "hidden_features": 8, "num_classes": 5}, [(2, 4, 6)]),
    "i3d": ({"num_classes": 5}, [(2, 9, 32, 32, 3)]),
    "i3d_lstm": ({"num_classes": 5, "hidden_features": 8}, [(1, 16, 32, 32, 3)]),
    "inception_lstm": ({"num_classes": 5, "hidden_features": 8}, [(1, 2, 32, 32, 3)]),
    "inception_v1": ({"num_classes": 5}, [(2, 32, 32, 3)]),
    "latent_video_gen": (
        {"num_classes": 5, "denoiser_options": {"widths": (32, 32)}, "codec_patch": 2, "codec_widths": (8, 8)},
        [(2, 2, 4, 4, 8), (2,), (2, 5), (2, 2)],
    ),
    "lstm": ({"in_features": 4, "num_classes": 5}, [(2, 6, 4)]),
    "mc3_18": ({"num_classes": 5}, [(1, 4, 16, 16, 3)]),
    "minilm": ({"layers": 1, "features": 32, "vocabulary": 9, "most_tokens": 4}, [np.array([[1, 2, 0], [3, 4, 5]])]),
    "mobilenet_v2": ({"num_classes": 5}, [(2, 32, 32, 3)]),
    "movinet_a0": ({"num_classes": 5, "stream": True}, [(1, 2, 32, 32, 3)]),
    "movinet_a1": ({"num_classes": 5}, [(1, 2, 32, 32, 3)]),
    "movinet_a2": ({"num_classes": 5}, [(1, 2, 32, 32, 3)]),
    "nextvlad": ({"clusters": 4, "groups": 4, "hidden_features": 16, "num_classes": 5}, [(2, 3, 1152)]),
    "movenet": ({}, [(1, 32, 32, 3)]),
    "predrnn_pp": ({"features": 8, "num_layers": 2, "kernel_size": 3}, [(1, 3, 8, 8, 1)]),
    "r2plus1d_18": ({"num_classes": 5}, [(1, 4, 16, 16, 3)]),
    "r3d_18": ({"num_classes": 5}, [(1, 4, 16, 16, 3)]),
    "resnet18": ({"num_classes": 5}, [(2, 32, 32, 3)]),
    "resnet50": ({"num_classes": 5}, [(2, 32, 32, 3)]),
    "s3d": ({"num_classes": 5}, [(1, 16, 32, 32, 3)]),
    "silero_vad": ({}, [(1, 1024)]),
    "simvp": (SMALL_SIMVP, [(1, 2, 8, 8, 1)]),
    "slow_r50": ({"num_classes": 5}, [(1, 2, 32, 32, 3)]),
    "slowfast_r50": ({"num_classes": 5}, [(1, 4, 32, 32, 3)]),
    "speech_ctc": ({"num_mels": 6, "features": 8, "hidden_features": 8, "num_classes": 5}, [(2, 12, 6)]),
    "tau": (SMALL_SIMVP, [(1, 2, 8, 8, 1)]),
    "transnetv2": ({}, [(1, 2, 27, 48, 3)]),
    "video_dit": ({"num_classes": 5, "features": 32, "num_blocks": 1, "patch": 4}, NOISY_CLIP),
    "video_gen": (
        {"num_classes": 5, "widths": (32, 32), "halve_time": True},
        [(2, 4, 16, 16, 1), (2,), (2, 5), (2, 4)],
    ),
    "video_vae": ({"patch": 2, "widths": (8, 8)}, [(1, 4, 8, 8, 1)]),
    "whisper": ({"layers": 1, "features": 64, "num_mels": 4, "vocabulary": 9}, [(1, 3000, 4), np.array([[1, 2, 3]])]),
    "x3d_m": ({"num_classes": 5}, [(1, 4, 32, 32, 3)]),
    "x3d_s": ({"num_classes": 5}, [(1, 4, 32, 32, 3)]),
    "x3d_xs": ({"num_classes": 5}, [(1, 4, 32, 32, 3)]),
}


def test_each_architecture_has_a_tiny_case():
    assert sorted(TINY) == registry.architectures()


# Those that take a minute to compile; the others have all their layers but one or two.
SLOW = (
    "centernet",
    "movenet",
    "efficientnet_lite0",
    "embedder",
    "i3d",
    "i3d_lstm",
    "inception_lstm",
    "inception_v1",
    "mc3_18",
    "mobilenet_v2",
    "movinet_a0",
    "movinet_a1",
    "movinet_a2",
    "r2plus1d_18",
    "r3d_18",
    "resnet50",
    "s3d",
    "slow_r50",
    "slowfast_r50",
    "transnetv2",
    "x3d_xs",
)
# The same network for larger clips: what is true of the smallest is true of these.
SAME = {"x3d_m": "x3d_xs", "x3d_s": "x3d_xs"}


@pytest.mark.parametrize("arch", SAME)
def test_the_same_network_has_the_same_parameters(arch):
    ours, theirs = (
        nnx.eval_shape(lambda name=name: registry.create(name, num_classes=5)) for name in (arch, SAME[arch])
    )
    assert jax.tree.map(lambda leaf: leaf.shape, nnx.state(ours)) == jax.tree.map(
        lambda leaf: leaf.shape, nnx.state(theirs)
    )


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=[pytest.mark.slow] * (a in SLOW)) for a in sorted(set(TINY) - set(SAME))]
)
def test_a_gradient_step_goes_down_and_weights_come_back(arch, tmp_path):
    options, shapes = TINY[arch]
    abstract = nnx.eval_shape(lambda: registry.create(arch, **options))
    model = fresh.network(arch, **options)

    inputs = [
        shape if isinstance(shape, np.ndarray) else jax.random.uniform(jax.random.key(number), shape)
        for number, shape in enumerate(shapes)
    ]
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        output = nnx.merge(graph, params, rest)(*inputs)
        target = jnp.linspace(-1, 1, output.size).reshape(output.shape)
        return jnp.mean((output - target) ** 2)

    # Plain lax, which compiles several times as fast; the other forms have tests of their own.
    with kernels.prefer("xla"):
        # The rest in NumPy: JAX would compile each operation anew for each shape.
        before, gradients = jax.tree.map(np.asarray, loss(params))
    squared = sum(np.sum(g**2) for g in jax.tree.leaves(gradients))
    assert squared > 0
    # A step small enough for the tangent to hold takes off about rate * |gradient|^2.
    rate = 1e-3 * before / squared
    after, _ = loss(jax.tree.map(lambda p, g: np.asarray(p) - rate * g, params, gradients))
    np.testing.assert_allclose(before - after, rate * squared, rtol=0.2)

    hub.save_weights(hub.weights_of(model), tmp_path / "weights")
    restored = hub.restore_weights(abstract, tmp_path / "weights")
    for ours, theirs in zip(
        jax.tree.leaves(hub.weights_of(model)), jax.tree.leaves(hub.weights_of(restored)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def count(arch, **options):
    model = nnx.eval_shape(lambda: registry.create(arch, **options))
    return sum(value.size for value in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_the_document_s_networks_have_the_document_s_parameters():
    # Keras counts 4 * ((1 + 64) * 64 + 64) for LSTM(64) on one feature, and 64 * 10 + 10 for Dense(10).
    assert count("lstm") == 4 * ((1 + 64) * 64 + 64) + 64 * 10 + 10
    convolutions = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64) + (64 * 9 * 128 + 128)
    assert count("cnn_2d") == convolutions + 28 * 28 * 128 * 1000 + 1000


def test_the_video_resnets_have_the_published_parameters():
    # torchvision.models.video: the sizes its documentation gives for the weights KINETICS400_V1.
    assert count("r3d_18") == 33_371_472
    assert count("mc3_18") == 11_695_440
    assert count("r2plus1d_18") == 31_505_325


def test_the_frame_cnns_have_the_published_parameters():
    # torchvision.models: the sizes its documentation gives for the weights IMAGENET1K_V1.
    assert count("resnet18") == 11_689_512
    assert count("resnet50") == 25_557_032
    assert count("mobilenet_v2") == 3_504_872


@pytest.mark.parametrize(("frame_cnn", "features"), [("resnet18", 512), ("resnet50", 2048), ("mobilenet_v2", 1280)])
def test_a_frame_cnn_serves_an_lstm(frame_cnn, features):
    """Without its classifier: the LSTM reads what the classifier would."""
    lstm = 4 * ((features + 8) * 8 + 8) + 8 * 5 + 5
    alone = count(frame_cnn, num_classes=None)
    assert alone == count(frame_cnn) - (features * 1000 + 1000)
    assert count("cnn_lstm", frame_cnn=frame_cnn, hidden_features=8, num_classes=5) == alone + lstm
    images = jax.ShapeDtypeStruct((2, 3, 40, 40, 3), jnp.float32)
    found = nnx.eval_shape(lambda x: registry.create(frame_cnn, num_classes=None).frame_features(x), images)
    assert found.shape == (2, 3, features)
    with pytest.raises(ValueError, match="without classes"):
        nnx.eval_shape(lambda: registry.create(frame_cnn, num_classes=None)(jnp.zeros((1, 40, 40, 3))))


def test_a_cnn_lstm_sees_the_order_of_frames_and_a_frame_cnn_does_not():
    video = jax.random.uniform(jax.random.key(0), (1, 4, 16, 16, 3))
    recurrent = registry.create("cnn_lstm", num_classes=3, frame_cnn="cnn_2d", hidden_features=8)
    framewise = registry.create("cnn_2d", num_classes=3, image_size=16)
    recurrent.eval()
    assert np.abs(recurrent(video) - recurrent(video[:, ::-1])).max() > 1e-3
    np.testing.assert_allclose(framewise(video), framewise(video[:, ::-1]), atol=1e-5)
