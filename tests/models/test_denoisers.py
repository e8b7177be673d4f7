"""What the generator's networks have in common: what they see, and what they refuse."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

from tests import fresh
from zoo.errors import UserError
from zoo.models.denoiser_pieces import from_patches, to_patches

SMALL = {
    "video_dit": {"patch": 4, "features": 64, "num_blocks": 2},
    "video_gen": {"widths": (32, 32)},
}


def alive(arch: str, **options):
    """Output layers start at zero; random ones show what reaches them."""
    model = fresh.network(arch, **SMALL[arch], **options)
    for i, leaf in enumerate(jax.tree.leaves(nnx.state(model), is_leaf=lambda v: isinstance(v, nnx.Param))):
        drawn = np.random.default_rng(i).normal(size=leaf.shape).astype(np.float32)
        leaf.set_value(jnp.asarray(drawn / np.sqrt(max(leaf.size // leaf.shape[-1], 1))))
    return nnx.jit(lambda *inputs: model(*inputs))


@pytest.mark.parametrize("arch", SMALL)
def test_it_sees_motion_noise_level_class_and_which_frames_are_known(arch):
    model = alive(arch)
    x = jax.random.normal(jax.random.key(0), (1, 4, 16, 16, 1))
    time, classes, known = jnp.full(1, 0.5), jax.nn.one_hot(jnp.array([3]), 10), jnp.zeros((1, 4))
    base = model(x, time, classes, known)
    assert base.shape == x.shape
    assert np.abs(model(x, time + 0.3, classes, known) - base).max() > 1e-3
    assert np.abs(model(x, time, classes * 2, known) - base).max() > 1e-3
    assert np.abs(model(x, time, classes, known.at[0, 0].set(1)) - base).max() > 1e-3
    changed = model(x.at[0, 3].add(1.0), time, classes, known)
    assert np.abs(changed[0, 0] - base[0, 0]).max() > 1e-4, "the last frame reaches the first"


def test_halved_time_reaches_as_far_and_gives_every_frame():
    model = alive("video_gen", halve_time=True)
    x = jax.random.normal(jax.random.key(0), (1, 4, 16, 16, 1))
    rest = jnp.full(1, 0.5), jnp.zeros((1, 10)), jnp.zeros((1, 4))
    base = model(x, *rest)
    assert base.shape == x.shape
    assert np.abs(base[0, 0] - base[0, 1]).max() > 1e-3
    assert np.abs(model(x.at[0, 3].add(1.0), *rest)[0, 0] - base[0, 0]).max() > 1e-4
    with pytest.raises(UserError, match="clips of 3 frames do not divide by 2; take 4"):
        model(x[:, :3], *rest[:2], jnp.zeros((1, 3)))


@pytest.mark.parametrize("arch", SMALL)
def test_sides_that_do_not_divide_are_told(arch):
    inputs = jnp.zeros((1, 4, 20, 18, 1)), jnp.zeros(1), jnp.zeros((1, 10)), jnp.zeros((1, 4))
    with pytest.raises(
        UserError, match=r"frames of 20x18 do not divide by [48]; resize or crop them, say to 2[04]x2[04]"
    ):
        fresh.network(arch, **SMALL[arch])(*inputs)


def test_patches_are_squares_of_pixels():
    x = jnp.arange(2 * 3 * 4 * 6 * 2.0).reshape(2, 3, 4, 6, 2)
    patches = to_patches(x, 2)
    np.testing.assert_array_equal(patches[1, 2, 1, 2], x[1, 2, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(from_patches(patches, 2), x)


def test_signatures_are_held_to_their_shapes():
    model = fresh.network("video_gen", widths=(32, 32))
    with pytest.raises(jaxtyping.TypeCheckError, match="time"):
        model(jnp.zeros((2, 4, 16, 16, 1)), jnp.zeros(3), jnp.zeros((2, 10)), jnp.zeros((2, 4)))
