"""The TPU kernel for stems, interpreted, against plain lax; and the plan that it works by."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from zoo.kernels import reference
from zoo.kernels.conv import tpu_stem
from zoo.kernels.conv.tpu_stem_plan import LANES, plan
from zoo.kernels.dispatch import Refused

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms

# Of the largest value; bfloat16 keeps 8 bits, and the order of sums differs.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


def _check(shape, window, features, strides, padding, dilation=None, dtype="float32", mode=None, **blocks):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal(shape), dtype)
    kernel = jnp.asarray(random.standard_normal((*window, shape[-1], features)), dtype)
    options = {"strides": strides, "padding": padding, "dilation": dilation or (1,) * len(window), "groups": 1}
    want = np.asarray(reference.conv(x, kernel, **options), np.float64)
    with pltpu.force_tpu_interpret_mode(mode or pltpu.InterpretParams(uninitialized_memory="nan")):
        got = tpu_stem.conv(x, kernel, **options, **blocks)
    assert got.dtype == x.dtype
    assert got.shape == want.shape
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=TOLERANCE[dtype] * abs(want).max(), rtol=0)


@pytest.mark.parametrize(
    ("shape", "window", "features", "strides", "padding"),
    [
        ((2, 3, 12, 12, 3), (3, 7, 7), 4, (1, 2, 2), ((1, 1), (3, 3), (3, 3))),  # frames kept, images side by side
        ((3, 20, 40, 3), (3, 3), 5, (2, 2), ((0, 1), (0, 1))),  # a batch that does not fill its last block
        ((1, 5, 150, 2), (3, 3), 5, (1, 1), ((1, 1), (1, 1))),  # a row of several tiles
        ((1, 33, 2, 2), (1, 4), 3, (2, 3), ((0, 2), (2, 3))),  # lines that no row of the result sees
        ((1, 1, 1, 1), (3, 3), 1, (1, 1), ((20, 1), (1, 1))),  # more padding above than a chunk has rows
    ],
)
@pytest.mark.parametrize("columns_in_lanes", [0, 1])
def test_stems(shape, window, features, strides, padding, columns_in_lanes):
    _check(shape, window, features, strides, padding, columns_in_lanes=columns_in_lanes)


def test_frames_passed_by_and_dilation():
    _check((1, 4, 9, 9, 1), (2, 3, 2), 3, (3, 3, 3), ((0, 2), (0, 1), (2, 0)), (1, 2, 1))


def test_without_races_in_bfloat16():
    mode = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    _check((3, 2, 6, 6, 3), (3, 3, 3), 4, (2, 1, 1), ((1, 1),) * 3, dtype="bfloat16", mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_any_shape(seed):
    random = np.random.default_rng(seed)
    axes = int(random.integers(2, 4))

    def numbers(low, high):
        return tuple(map(int, random.integers(low, high + 1, axes)))

    window, strides, dilation = numbers(1, 5), numbers(1, 3), numbers(1, 2)
    padding = tuple(zip(numbers(0, 3), numbers(0, 3), strict=True))
    spatial = tuple((k - 1) * d + 1 + extra for k, d, extra in zip(window, dilation, numbers(0, 20), strict=True))
    shape = (int(random.integers(1, 5)), *spatial, int(random.integers(1, 4)))
    _check(shape, window, int(random.integers(1, 20)), strides, padding, dilation, random.choice(list(TOLERANCE)))


def test_every_line_that_a_row_sees_is_in_one_of_its_bands():
    """For the R3D-18 stem, whose windows see 7 of every 21 rows that a product holds."""
    made = plan((8, 16, 112, 112, 3), (3, 7, 7), (1, 2, 2), ((1, 1), (3, 3), (3, 3)), 64, 2)
    for row in range(made.rows):
        first = row * made.strides[1] * made.lines
        seen = set(range(first, first + made.window[1] * made.lines))
        for band in made.bands:
            if band.first_row <= row < band.last_row:
                seen -= set(range(band.start, band.stop))
        assert not seen
    assert made.images == 2
    # A lane of a phase takes one column of one image, or padding.
    assert made.columns.reshape(-1, made.phases * LANES).sum(0).max() == 1


def test_refusals_name_what_they_got():
    options = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    with pytest.raises(Refused, match="not 8"):
        tpu_stem.conv(jnp.zeros((1, 9, 9, 8)), jnp.zeros((3, 3, 8, 4)), groups=1, **options)
    with pytest.raises(Refused, match="one group, not 3"):
        tpu_stem.conv(jnp.zeros((1, 9, 9, 3)), jnp.zeros((3, 3, 1, 3)), groups=3, **options)
    with pytest.raises(Refused, match="MiB on the chip"):
        tpu_stem.conv(jnp.zeros((1, 4000, 4000, 3)), jnp.zeros((3, 3, 3, 64)), groups=1, **options)
    with pytest.raises(Refused, match="up to 512 features, not 1000"):
        tpu_stem.conv(jnp.zeros((1, 9, 9, 3)), jnp.zeros((3, 3, 3, 1000)), groups=1, **options)
