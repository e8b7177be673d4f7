"""Plain lax: the truth that every other implementation is tested against.

Arrays are channels-last. The rank of the kernel or of the window tells how many axes before the channels are spatial;
all axes before those are batch, so a 2D operation on `[batch, time, height, width, channels]` treats time as batch.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .arguments import Padding

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    None: lambda x: x,
}


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


def conv_input_gradient(g: jax.Array, kernel: jax.Array, *, spatial: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `conv(x, kernel, **options)` means for x `[N, *spatial, C]`."""
    x = jax.ShapeDtypeStruct((g.shape[0], *spatial, kernel.shape[-2] * options["groups"]), g.dtype)
    return jax.linear_transpose(lambda x: conv(x, kernel, **options), x)(g)[0]


def conv_weight_gradient(x: jax.Array, g: jax.Array, *, window: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `conv(x, kernel, **options)` means for the kernel `[*window, C / groups, F]`; float32."""
    kernel = jax.ShapeDtypeStruct((*window, x.shape[-1] // options["groups"], g.shape[-1]), x.dtype)
    dkernel = jax.linear_transpose(lambda kernel: conv(x, kernel, **options), kernel)(g)[0]
    return dkernel.astype(jnp.promote_types(x.dtype, jnp.float32))


def conv_transpose(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Padding) -> jax.Array:
    """Fractionally strided convolution of x `[N, *spatial, C]` with kernel `[*window, C, F]`, not flipped."""
    letters = "DHW"[-(kernel.ndim - 2) :]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_transpose(x, kernel, strides, padding, dimension_numbers=numbers)


def conv_bias_act_pool(
    x, kernel, bias, residual=None, *, activation, window, strides, padding, pool_strides, pool_padding
) -> jax.Array:
    """`max_pool(activation(conv(x, kernel) + bias + residual))`; window None pools nothing."""
    y = conv(x, kernel, strides=strides, padding=padding, dilation=(1,) * (kernel.ndim - 2), groups=1) + bias
    y = ACTIVATIONS[activation](y if residual is None else y + residual)
    return y if window is None else max_pool(y, window=window, strides=pool_strides, padding=pool_padding)


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Padding) -> jax.Array:
    """One filter a channel: x `[*batch, *spatial, C]`, kernel `[*window, 1, C]`."""
    dilation = (1,) * (kernel.ndim - 2)
    return conv(x, kernel, strides=strides, padding=padding, dilation=dilation, groups=x.shape[-1])


def depthwise_conv_input_gradient(g: jax.Array, kernel: jax.Array, *, spatial: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `depthwise_conv(x, kernel, **options)` means for x `[N, *spatial, C]`."""
    dilation = (1,) * len(spatial)
    return conv_input_gradient(g, kernel, spatial=spatial, dilation=dilation, groups=g.shape[-1], **options)


def depthwise_conv_weight_gradient(x: jax.Array, g: jax.Array, *, window: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `depthwise_conv(x, kernel, **options)` means for the kernel `[*window, 1, C]`; float32."""
    return conv_weight_gradient(x, g, window=window, dilation=(1,) * len(window), groups=x.shape[-1], **options)


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


def max_pool_gradient(x: jax.Array, out: jax.Array, g: jax.Array, **options) -> jax.Array:
    """What a cotangent g of `out = max_pool(x, **options)` means for x: the first largest value takes it all."""
    del out
    return jax.vjp(partial(max_pool, **options), x)[1](g)[0]


def avg_pool(x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Padding) -> jax.Array:
    """Mean of each window of x `[*batch, *spatial, C]` over the values that are there: padding is not counted."""
    over = _over_spatial(x, window, strides, padding)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    zero = np.zeros((), wide)[()]
    total = lax.reduce_window(x.astype(wide), zero, lax.add, *over)
    ones = jnp.ones((*(1,) * (x.ndim - len(window) - 1), *x.shape[-len(window) - 1 : -1], 1), wide)
    return (total / lax.reduce_window(ones, zero, lax.add, *over)).astype(x.dtype)


def avg_pool_gradient(g: jax.Array, *, spatial: Sequence[int], **options) -> jax.Array:
    """What a cotangent g of `avg_pool(x, **options)` means for x `[N, *spatial, C]`."""
    x = jax.ShapeDtypeStruct((g.shape[0], *spatial, g.shape[-1]), g.dtype)
    return jax.linear_transpose(partial(avg_pool, **options), x)(g)[0]


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
    channels = x.shape[-1]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    plain = {"strides": (1, 1), "padding": "SAME", "dilation": (1, 1), "groups": 1}
    # The input's share of the gates needs no recurrence: one convolution over all frames at once.
    from_input = conv(x, kernel[:, :, :channels], **plain)

    def step(state, from_input):
        h, c = state
        gates = from_input.astype(wide) + conv(h, kernel[:, :, channels:], **plain).astype(wide) + bias
        h, c = conv_lstm_cell(gates, c, peephole)
        h = h.astype(x.dtype)
        return (h, c), h

    h, c = conv_lstm_state(x, kernel) if initial_state is None else initial_state
    carry = (h.astype(x.dtype), c.astype(wide))
    (h, c), outputs = lax.scan(step, carry, jnp.moveaxis(from_input, 1, 0))
    return jnp.moveaxis(outputs, 0, 1), (h, c.astype(x.dtype))


def conv_lstm_state(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The `(h, c)` that `conv_lstm` starts from where none is given: zeros, in x's dtype."""
    zeros = jnp.zeros((x.shape[0], *x.shape[2:4], kernel.shape[-1] // 4), x.dtype)
    split = tuple(jax.typeof(x).manual_axis_type.varying | jax.typeof(kernel).manual_axis_type.varying)
    zeros = lax.pcast(zeros, split, to="varying") if split else zeros  # in shard_map a scan's state is split as x is
    return zeros, zeros


def conv_lstm_cell(
    gates: jax.Array, c: jax.Array, peephole: tuple[jax.Array, jax.Array, jax.Array] | None
) -> tuple[jax.Array, jax.Array]:
    """One step: gates `[..., 4F]` before their sigmoids and the cell `[..., F]` to the new h and c, in c's dtype."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    if peephole is not None:
        of_input, of_forget, _ = (w.astype(c.dtype) for w in peephole)
        i, f = i + of_input * c, f + of_forget * c
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    if peephole is not None:
        o = o + peephole[2].astype(c.dtype) * c
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def conv_lstm_stack(
    x: jax.Array, layers: Sequence[tuple[jax.Array, jax.Array]], *, layer: Callable[..., Any] = conv_lstm
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """Layers of (kernel, bias), each on the outputs of the one before; all start at zero. `layer` is `conv_lstm`."""
    states = []
    for kernel, bias in layers:
        x, state = layer(x, kernel, bias, initial_state=None)
        states.append(state)
    return x, states
