"""ConvLSTM over a whole sequence."""

import jax

from .. import reference


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """A sequence through one ConvLSTM layer (Shi et al. 2015, arXiv:1506.04214, without peepholes).

    x `[B, T, H, W, C]`, kernel `[kh, kw, C + F, 4F]`, bias `[4F]`; gates in the order input, forget, cell, output.
    Returns outputs `[B, T, H, W, F]` and the final state `(h, c)`, each `[B, H, W, F]`; the state starts at zero
    unless `initial_state` is given.

    Raises:
      ValueError: shapes that do not fit.
    """
    features = kernel.shape[-1] // 4
    if x.ndim != 5 or kernel.ndim != 4 or kernel.shape[-1] % 4 or kernel.shape[-2] != x.shape[-1] + features:
        raise ValueError(f"conv_lstm: x {x.shape} wants a kernel [kh, kw, C + F, 4F], not {kernel.shape}")
    return reference.conv_lstm(x, kernel, bias, initial_state=initial_state)
