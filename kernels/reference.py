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
    x: jax.Array, kernel: jax.Array, bias: jax.Array, *, initial_state: tuple[jax.Array, jax.Array] | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """A whole sequence through one ConvLSTM layer (Shi et al. 2015, arXiv:1506.04214, without peepholes).

    x `[B, T, H, W, C]`, kernel `[kh, kw, C + F, 4F]` over the concatenation of input and hidden state, gates in the
    order input, forget, cell, output. Returns outputs `[B, T, H, W, F]` and the final `(h, c)`, each `[B, H, W, F]`.
    """
    features = kernel.shape[-1] // 4
    channels = x.shape[-1]
    if initial_state is None:
        zeros = jnp.zeros((x.shape[0], *x.shape[2:4], features), x.dtype)
        initial_state = (zeros, zeros)
    plain = {"strides": (1, 1), "padding": "SAME", "dilation": (1, 1), "groups": 1}
    # The input's share of the gates needs no recurrence: one convolution over all frames at once.
    from_input = conv(x, kernel[:, :, :channels], **plain) + bias

    def step(state, gates):
        h, c = state
        i, f, g, o = jnp.split(gates + conv(h, kernel[:, :, channels:], **plain), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    state, outputs = lax.scan(step, initial_state, jnp.moveaxis(from_input, 1, 0))
    return jnp.moveaxis(outputs, 0, 1), state
