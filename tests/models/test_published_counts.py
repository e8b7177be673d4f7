"""Parameters and operations of the published networks, against the figures of those who publish them."""

import jax
import pytest
from flax import nnx

import zoo
from tests.golden import drawn
from zoo import hub, registry
from zoo.publish import flops

# Exact: torchvision's own `num_params`, and what PyTorchVideo 0.1.5 builds (its table has 3.79M, 32.45M and 34.57M).
PARAMETERS = {
    "s3d": 8_320_048,
    "x3d_xs": 3_794_274,
    "x3d_s": 3_794_274,
    "x3d_m": 3_794_274,
    "slow_r50": 32_454_096,
    "slowfast_r50": 34_566_488,
}

# Clip, and billions of multiply-adds by torchvision's `_ops` (S3D's is of 16 frames) and PyTorchVideo's table, which
# counts up to a tenth more than convolutions and products.
OPERATIONS = {
    "r3d_18": ((16, 112, 112, 3), 40.697),
    "mc3_18": ((16, 112, 112, 3), 43.343),
    "r2plus1d_18": ((16, 112, 112, 3), 40.519),
    "s3d": ((128, 224, 224, 3), 17.979 * 128 / 16),
    "resnet18": ((224, 224, 3), 1.814),
    "resnet50": ((224, 224, 3), 4.089),
    "mobilenet_v2": ((224, 224, 3), 0.301),
    "x3d_xs": ((4, 182, 182, 3), 0.91),
    "x3d_s": ((13, 182, 182, 3), 2.96),
    "x3d_m": ((16, 256, 256, 3), 6.72),
    "slow_r50": ((8, 256, 256, 3), 54.52),
    "slowfast_r50": ((32, 256, 256, 3), 65.71),
}


def abstract(arch: str, **options: object) -> nnx.Module:
    model = nnx.eval_shape(lambda: zoo.create(arch, **options))
    model.eval()
    return model


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameters(arch: str):
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(arch), nnx.Param))) == PARAMETERS[arch]


@pytest.mark.slow
@pytest.mark.parametrize("arch", OPERATIONS)
def test_operations(arch: str):
    """As many as the original has; golden/make_networks.py counts those layer by layer."""
    shape, _ = OPERATIONS[arch]
    _, counted = drawn.read("multiply_adds")
    # SlowFast's and Slow's dense layers go over every place in the original, over the average of them here.
    assert flops(abstract(arch), (1, *shape)) / 2 == pytest.approx(int(counted[arch]), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in registry.list_models() if registry.card(name).arch in OPERATIONS])
def test_cards_have_the_operations(name: str):
    card = registry.card(name)
    _, published = OPERATIONS[card.arch]
    _, counted = drawn.read("multiply_adds")
    assert card.flops / 2 == pytest.approx(int(counted[card.arch]), rel=1e-4)
    by_torchvision = "torchvision" in card.protocol
    assert card.flops / 2e9 == pytest.approx(published, rel=0.005 if by_torchvision else 0.1)


def test_frame_features_have_the_sizes_of_their_layers():
    """Counted by hand from the layers that the starter code and NeXtVLAD's authors list."""
    lstm = sum(4 * ((before + 1024) * 1024 + 1024) for before in (1152, 1024))
    experts = 1024 * 3862 * 3 + 1024 * 3862 * 2 + 3862 * 2
    assert size(abstract("frame_lstm")) == lstm + experts

    def vlad(features: int, clusters: int, groups: int) -> tuple[int, int]:
        wide, part = 2 * features, 2 * features // groups
        dense = features * wide + wide + wide * groups + groups + wide * groups * clusters + part * clusters
        return dense + 2 * groups * clusters + 2 * part * clusters, part * clusters

    (visual, seen), (audio, heard) = vlad(1024, 128, 8), vlad(128, 64, 4)
    gate = 2048 * 256 * 2 + 2 * 256
    head = (seen + heard) * 2048 + 2 * 2048 + gate + 2048 * 3862 + 3862
    assert size(abstract("nextvlad")) == visual + audio + head


def size(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("arch", "millions"), [("movinet_a0", 3.126071), ("movinet_a1", 4.717912), ("movinet_a2", 5.280922)]
)
def test_movinet_has_the_arrays_of_the_original(arch: str, millions: float):
    """Those numbers are in the original's own tests; they count batch statistics too."""
    weights = hub.weights_of(abstract(arch))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == round(millions * 1e6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "shape", "billions", "tolerance"),
    [
        ("movinet_a0", (50, 172, 172, 3), 2.7, 0.03),
        ("movinet_a1", (50, 172, 172, 3), 6.0, 0.03),
        # Their table's A2 has fewer operations than their specification of it, which gives the exact parameters above.
        ("movinet_a2", (50, 224, 224, 3), 10, 0.16),
    ],
)
def test_movinet_has_about_the_operations_of_the_original(
    arch: str, shape: tuple[int, ...], billions: float, tolerance: float
):
    """Multiply-adds; the original's table gives two digits, the same for the stream form, which saves a tenth."""
    base, stream = (flops(abstract(arch, stream=stream), (1, *shape)) / 2e9 for stream in (False, True))
    assert base == pytest.approx(billions, rel=tolerance)
    assert 0.89 * base < stream < base
