"""Convolution, pooling and ConvLSTM for video, called like `jax.nn`.

Arrays are channels-last; the rank of the kernel or window tells how many axes are spatial (1, 2 or 3) and every axis
before them is batch. Padding is "SAME", "VALID" or (low, high) pairs as in `jax.lax`. `implementation=None` lets
`zoo.kernels.dispatch` choose; a name asks for that one and fails if it does not exist.
"""

from collections.abc import Sequence

import jax

from . import dispatch
from .reference import Padding

__all__ = ["Padding", "avg_pool", "conv", "conv_lstm", "depthwise_conv", "max_pool"]


def _per_axis(value: int | Sequence[int], axes: int, what: str) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise ValueError(f"{what}={value} has {len(values)} numbers for {axes} spatial axes")
    return values


def _check_input(x: jax.Array, axes: int, operation: str) -> None:
    if axes not in (1, 2, 3):
        raise ValueError(f"{operation} works on 1, 2 or 3 spatial axes, not {axes}")
    if x.ndim < axes + 1:
        raise ValueError(f"{operation} over {axes} spatial axes needs channels behind them; x has shape {x.shape}")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    implementation: str | None = None,
) -> jax.Array:
    """Convolution (cross-correlation) of x `[*batch, *spatial, C]` with kernel `[*window, C / groups, F]`.

    Returns `[*batch, *spatial', F]` in x's dtype.

    Raises:
      ValueError: shapes that do not fit, or an unknown implementation.
    """
    axes = kernel.ndim - 2
    _check_input(x, axes, "conv")
    if x.shape[-1] != kernel.shape[-2] * groups or kernel.shape[-1] % groups:
        raise ValueError(f"conv: x {x.shape} and kernel {kernel.shape} do not fit with groups={groups}")
    return dispatch.choose("conv", implementation)(
        x,
        kernel,
        strides=_per_axis(strides, axes, "strides"),
        padding=padding,
        dilation=_per_axis(dilation, axes, "dilation"),
        groups=groups,
    )


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    implementation: str | None = None,
) -> jax.Array:
    """One filter a channel: x `[*batch, *spatial, C]`, kernel `[*window, 1, C]`, result `[*batch, *spatial', C]`.

    Raises:
      ValueError: shapes that do not fit, or an unknown implementation.
    """
    axes = kernel.ndim - 2
    _check_input(x, axes, "depthwise_conv")
    if kernel.shape[-2:] != (1, x.shape[-1]):
        raise ValueError(f"depthwise_conv: kernel {kernel.shape} should end in (1, {x.shape[-1]}) for x {x.shape}")
    return dispatch.choose("depthwise_conv", implementation)(
        x, kernel, strides=_per_axis(strides, axes, "strides"), padding=padding
    )


def _pool(operation, x, window, strides, padding, implementation):
    window = tuple(window)
    _check_input(x, len(window), operation)
    strides = window if strides is None else _per_axis(strides, len(window), "strides")
    return dispatch.choose(operation, implementation)(x, window=window, strides=strides, padding=padding)


def max_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    implementation: str | None = None,
) -> jax.Array:
    """Largest value in each window of x `[*batch, *spatial, C]`; padding never wins. Strides default to the window.

    Raises:
      ValueError: shapes that do not fit, or an unknown implementation.
    """
    return _pool("max_pool", x, window, strides, padding, implementation)


def avg_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    implementation: str | None = None,
) -> jax.Array:
    """Mean over each window of x `[*batch, *spatial, C]`, padding not counted. Strides default to the window.

    Raises:
      ValueError: shapes that do not fit, or an unknown implementation.
    """
    return _pool("avg_pool", x, window, strides, padding, implementation)


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: tuple[jax.Array, jax.Array] | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """A sequence through one ConvLSTM layer (Shi et al. 2015, arXiv:1506.04214, without peepholes).

    x `[B, T, H, W, C]`, kernel `[kh, kw, C + F, 4F]`, bias `[4F]`; gates in the order input, forget, cell, output.
    Returns outputs `[B, T, H, W, F]` and the final state `(h, c)`, each `[B, H, W, F]`; the state starts at zero
    unless `initial_state` is given.

    Raises:
      ValueError: shapes that do not fit, or an unknown implementation.
    """
    features = kernel.shape[-1] // 4
    if x.ndim != 5 or kernel.ndim != 4 or kernel.shape[-1] % 4 or kernel.shape[-2] != x.shape[-1] + features:
        raise ValueError(f"conv_lstm: x {x.shape} wants a kernel [kh, kw, C + F, 4F], not {kernel.shape}")
    return dispatch.choose("conv_lstm", implementation)(x, kernel, bias, initial_state=initial_state)
