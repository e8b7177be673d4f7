"""How far predicted frames are from the true ones, frame by frame.

All take floats `[..., H, W, C]` from 0 (black) to 1 (white) and give `[...]`, one figure a frame. Literature on Moving
MNIST sums errors over a frame's pixels and averages over frames and sequences; so do `mse` and `mae`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zoo import kernels

Frames = Float[Any, "*batch height width channels"]
OfFrames = Float[jax.Array, "*batch"]

_FRAME = (-3, -2, -1)


def mse(prediction: Frames, truth: Frames) -> OfFrames:
    """Squared error, summed over a frame's pixels and channels."""
    return jnp.square(prediction - truth).sum(_FRAME)


def mae(prediction: Frames, truth: Frames) -> OfFrames:
    """Absolute error, summed over a frame's pixels and channels."""
    return jnp.abs(prediction - truth).sum(_FRAME)


def psnr(prediction: Frames, truth: Frames) -> OfFrames:
    """Peak signal-to-noise ratio in decibels, the peak being 1; infinite where nothing differs."""
    return -10 * jnp.log10(jnp.square(prediction - truth).mean(_FRAME))


def ssim(prediction: Frames, truth: Frames, data_range: float = 1.0) -> OfFrames:
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), at most 1, mean over pixels and channels.

    As in scikit-image: windows of 7x7 alike weights, variances of a sample (divided by 48 of 49), K1 0.01, K2 0.03, and
    no window that reaches over the border.

    Args:
      data_range: from the least to the greatest value that a pixel can have. It is 1; a `data_range` of 2 gives the
        figures of the literature on Moving MNIST, whose scikit-image took floats to run from -1 to 1.
    """
    side, pixels = 7, 49
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(x: jax.Array) -> jax.Array:
        return kernels.avg_pool(x, window=(side, side), strides=1, padding="VALID")

    x, y = jnp.asarray(prediction), jnp.asarray(truth)
    mean_x, mean_y = mean(x), mean(y)
    unbiased = pixels / (pixels - 1)
    variances = unbiased * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    like = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (like / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))).mean(_FRAME)


def gradient_difference(prediction: Frames, truth: Frames) -> OfFrames:
    """How much the steepness between neighbours differs (Mathieu et al. 2015, arXiv:1511.05440, alpha 1), summed."""

    def off(axis: int) -> jax.Array:
        steepness = (jnp.abs(jnp.diff(frames, axis=axis)) for frames in (prediction, truth))
        return jnp.abs(jnp.subtract(*steepness)).sum(_FRAME)

    return off(-3) + off(-2)


FIGURES: dict[str, Callable[[Frames, Frames], OfFrames]] = {
    "mse": mse,
    "mae": mae,
    "ssim": ssim,
    "ssim_range2": lambda prediction, truth: ssim(prediction, truth, data_range=2.0),
    "psnr": psnr,
    "gradient_difference": gradient_difference,
}
"""By the names that tables and cards use."""


def figures(prediction: Frames, truth: Frames) -> dict[str, OfFrames]:
    """All of `FIGURES`. A prediction may leave [0, 1]: errors count that, the others see it cut off, as is usual."""
    inside = jnp.clip(prediction, 0, 1)
    return {name: figure(prediction if name in ("mse", "mae") else inside, truth) for name, figure in FIGURES.items()}
