"""3D convolution as 2D: the frames that a window sees lie side by side on the channels.

XLA's CPU backend is further from a core's peak in 3D than in 2D. Functions of padded blocks, as in
`rewritten_products.py`.
"""

import jax
from jax import lax

from .rewritten_window import Window


def on_channels(x: jax.Array, window: Window) -> jax.Array:
    """x `[N, T, H, W, C]` to frames `[N x T', H, W, taps x C]`, one for each place of the window in time."""
    places = window.outputs(x.shape[1:-1])[0]
    in_time = Window((window.taps[0], 1, 1), (window.strides[0], 1, 1), (window.dilation[0], 1, 1))
    seen = [in_time.seen(x, tap, (places, *x.shape[2:4])) for tap in in_time.places()]
    joined = lax.concatenate(seen, 4) if len(seen) > 1 else seen[0]
    return joined.reshape(-1, *joined.shape[2:])


def of_frames(kernel: jax.Array) -> jax.Array:
    """Kernel `[kt, kh, kw, C, F]` to that of `on_channels`, `[kh, kw, kt x C, F]`."""
    _, rows, columns, _, features = kernel.shape
    return kernel.transpose(1, 2, 0, 3, 4).reshape(rows, columns, -1, features)


def conv(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """`[N, *outputs, F]` by lax, in 2D where x is 3D."""
    images = x.shape[0]
    if len(window.taps) == 3:
        x, kernel = on_channels(x, window), of_frames(kernel)
    axes = kernel.ndim - 2
    letters = "HW"[-axes:]
    out = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.strides[-axes:],
        padding="VALID",
        rhs_dilation=window.dilation[-axes:],
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    return out.reshape(images, -1, *out.shape[1:]) if len(window.taps) == 3 else out
