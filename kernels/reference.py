"""Plain lax: the truth that every other implementation is tested against.

Arrays are channels-last. The rank of the kernel or of the window tells how many axes before the channels are spatial;
all axes before those are batch, so a 2D operation on `[batch, time, height, width, channels]` treats time as batch.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

type Padding = str | Sequence[tuple[int, int]]


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    """Cross-correlation of x `[*batch, *spatial, C]` with kernel `[*window, C / groups, F]`."""
    spatial = kernel.ndim - 2
    batch = x.shape[: x.ndim - spatial - 1]
    letters = "DHW"[-spatial:]
    out = lax.conv_general_dilated(
        x.reshape(math.prod(batch), *x.shape[len(batch) :]),
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
    )
    return out.reshape(*batch, *out.shape[1:])


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Padding) -> jax.Array:
    """One filter a channel: x `[*batch, *spatial, C]`, kernel `[*window, 1, C]`."""
    dilation = (1,) * (kernel.ndim - 2)
    return conv(x, kernel, strides=strides, padding=padding, dilation=dilation, groups=x.shape[-1])


def _over_spatial(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Padding):
    """Window, strides and padding written out over every axis of x, batch and channels untouched."""
    batch = (1,) * (x.ndim - len(window) - 1)
    if not isinstance(padding, str):
        padding = [(0, 0)] * len(batch) + list(padding) + [(0, 0)]
    return (*batch, *window, 1), (*batch, *strides, 1), padding


def max_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Padding) -> jax.Array:
    """Largest value in each window of x `[*batch, *spatial, C]`; padding counts as the smallest value."""
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else np.iinfo(x.dtype).min
    # NumPy's, not JAX's: under jit that would be traced, and lax knows a max-pool, which has a gradient, by its value.
    return lax.reduce_window(x, np.asarray(lowest, x.dtype)[()], lax.max, *_over_spatial(x, window, strides, padding))


def avg_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Padding) -> jax.Array:
    """Mean of each window of x `[*batch, *spatial, C]` over the values that are there: padding is not counted."""
    over = _over_spatial(x, window, strides, padding)
    zero = np.zeros((), x.dtype)[()]
    total = lax.reduce_window(x, zero, lax.add, *over)
    ones = jnp.ones((*(1,) * (x.ndim - len(window) - 1), *x.shape[-len(window) - 1 : -1], 1), x.dtype)
    return total / lax.reduce_window(ones, zero, lax.add, *over)


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: tuple[jax.Array, jax.Array] | None,
    peephole: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """A whole sequence through one ConvLSTM layer (Shi et al. 2015, arXiv:1506.04214).

    x `[B, T, H, W, C]`, kernel `[kh, kw, C + F, 4F]` over the concatenation of input and hidden state, bias `[4F]`,
    gates in the order input, forget, cell, output. `peephole` holds `(w_ci, w_cf, w_co)`, each broadcastable to
    `[H, W, F]`: the input and forget gates see the cell before the step, the output gate sees it after. Returns
    outputs `[B, T, H, W, F]` and the final `(h, c)`, each `[B, H, W, F]`, all in x's dtype.

    Gates and cell are computed, and the cell is carried from step to step, in float32 (float64 for such x); only what
    leaves the sequence is rounded to x's dtype. h is rounded at every step, since the next convolution reads it.
    """
    features = kernel.shape[-1] // 4
    channels = x.shape[-1]
    if initial_state is None:
        zeros = jnp.zeros((x.shape[0], *x.shape[2:4], features), x.dtype)
        initial_state = (zeros, zeros)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    w_ci, w_cf, w_co = (w.astype(wide) for w in peephole) if peephole is not None else (None, None, None)
    plain = {"strides": (1, 1), "padding": "SAME", "dilation": (1, 1), "groups": 1}
    # The input's share of the gates needs no recurrence: one convolution over all frames at once.
    from_input = conv(x, kernel[:, :, :channels], **plain)

    def step(state, from_input):
        h, c = state
        gates = from_input.astype(wide) + conv(h, kernel[:, :, channels:], **plain).astype(wide) + bias
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        if peephole is not None:
            i, f = i + w_ci * c, f + w_cf * c
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        if peephole is not None:
            o = o + w_co * c
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype)
        return (h, c), h

    h, c = initial_state
    carry = (h.astype(x.dtype), c.astype(wide))
    (h, c), outputs = lax.scan(step, carry, jnp.moveaxis(from_input, 1, 0))
    return jnp.moveaxis(outputs, 0, 1), (h, c.astype(x.dtype))
