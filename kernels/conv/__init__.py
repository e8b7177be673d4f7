"""Convolution over one, two or three axes: dense, grouped, transposed, and fused with what follows it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .. import dispatch, reference
from ..arguments import Padding, check_floating, check_input, over_folded_batch, pairs, per_axis
from ..pool import max_pool
from . import vjp

_CONV = ("conv", "conv_input_gradient", "conv_weight_gradient")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """Convolution (cross-correlation) of x `[*batch, *spatial, C]` with kernel `[*window, C / groups, F]`.

    Returns `[*batch, *spatial', F]` in x's dtype; products are summed in float32 or wider.

    Raises:
      ValueError: shapes or dtypes that do not fit, or no implementation asked for serves the call.
    """
    axes = kernel.ndim - 2
    check_input(x, axes, "conv")
    check_floating("conv", x=x, kernel=kernel)
    if groups < 1 or x.shape[-1] != kernel.shape[-2] * groups or kernel.shape[-1] % groups:
        raise ValueError(f"conv: x {x.shape} and kernel {kernel.shape} do not fit with groups={groups}")
    strides, dilation = per_axis(strides, axes, "strides"), per_axis(dilation, axes, "dilation")
    padding = pairs(padding, x.shape[-axes - 1 : -1], kernel.shape[:-2], strides, dilation)
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}

    def fold(x):
        call = dispatch.call("conv", [x, kernel], options, implementation)
        if dispatch.is_plain(_CONV, call):
            return reference.conv(x, kernel, **options)
        return vjp.conv(x, kernel, call)

    return over_folded_batch(fold, x, axes)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """Transposed (fractionally strided) convolution, as `jax.lax.conv_transpose` has it.

    x `[*batch, *spatial, C]`, kernel `[*window, C, F]` with C before F and not flipped, result `[*batch, *spatial', F]`
    where "SAME" makes spatial' = spatial * strides. Pairs pad the input after zeros were put between its values.

    Raises:
      ValueError: shapes or dtypes that do not fit, or no implementation asked for serves the call.
    """
    axes = kernel.ndim - 2
    check_input(x, axes, "conv_transpose")
    check_floating("conv_transpose", x=x, kernel=kernel)
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(f"conv_transpose: x {x.shape} and kernel {kernel.shape} do not fit")
    strides = per_axis(strides, axes, "strides")
    around = _around_dilated(padding, kernel.shape[:-2], strides)
    spatial = x.shape[-axes - 1 : -1]
    window = kernel.shape[:-2]
    larger = tuple(
        (size - 1) * stride + 1 + low + high - reach + 1
        for size, stride, (low, high), reach in zip(spatial, strides, around, window, strict=True)
    )
    if min(larger) < 1:
        raise ValueError(f"conv_transpose: a window of {window} does not fit into {spatial} with padding {around}")
    # The same numbers come from the input gradient of a convolution with the kernel turned round.
    cropped = tuple((reach - 1 - low, reach - 1 - high) for reach, (low, high) in zip(window, around, strict=True))
    options = {"strides": strides, "padding": cropped, "dilation": (1,) * axes, "groups": 1}
    turned = jnp.flip(kernel, range(axes)).swapaxes(-1, -2)

    def fold(x):
        larger_input = jax.ShapeDtypeStruct((x.shape[0], *larger, kernel.shape[-1]), x.dtype)
        call = dispatch.call("conv", [larger_input, turned], options, implementation)
        if dispatch.is_plain(_CONV, call):
            return reference.conv_transpose(x, kernel, strides=strides, padding=around)
        return vjp.conv_transpose(x, turned, call, larger)

    return over_folded_batch(fold, x, axes)


def _around_dilated(padding: Padding, window: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Padding around the input with zeros between its values, as lax counts it."""
    if not isinstance(padding, str):
        around = tuple((int(low), int(high)) for low, high in padding)
        if len(around) != len(window):
            raise ValueError(f"padding={padding} has {len(around)} pairs for {len(window)} spatial axes")
        return around
    if padding.upper() not in ("SAME", "VALID"):
        raise ValueError(f'padding {padding!r} is neither "SAME" nor "VALID" nor a pair for each axis')
    around = []
    for reach, stride in zip(window, strides, strict=True):
        if padding.upper() == "SAME":
            total = reach + stride - 2
            low = reach - 1 if stride > reach - 1 else -(-total // 2)
        else:
            total = reach + stride - 2 + max(reach - stride, 0)
            low = reach - 1
        around.append((low, total - low))
    return tuple(around)


def conv_bias_act_pool(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    activation: str | None = "relu",
    window: Sequence[int] | None = None,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    pool_strides: int | Sequence[int] | None = None,
    pool_padding: Padding = "VALID",
    residual: jax.Array | None = None,
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """`max_pool(activation(conv(x, kernel) + bias + residual))` in one go, so that what lies between stays on the chip.

    x `[*batch, *spatial, C]`, kernel `[*window, C, F]`, bias `[F]`, residual as the convolution's result or None;
    activation is "relu", "silu", "gelu", "tanh", "sigmoid" or None; window None pools nothing. `strides` and `padding`
    are the convolution's; `pool_strides` default to the pooling window.

    Raises:
      ValueError: shapes or dtypes that do not fit, or no implementation asked for serves the call.
    """
    axes = kernel.ndim - 2
    check_input(x, axes, "conv_bias_act_pool")
    check_floating("conv_bias_act_pool", x=x, kernel=kernel, bias=bias)
    if x.shape[-1] != kernel.shape[-2] or bias.shape != kernel.shape[-1:]:
        raise ValueError(f"conv_bias_act_pool: x {x.shape}, kernel {kernel.shape} and bias {bias.shape} do not fit")
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is none of {', '.join(map(repr, reference.ACTIVATIONS))}")
    strides = per_axis(strides, axes, "strides")
    padding = pairs(padding, x.shape[-axes - 1 : -1], kernel.shape[:-2], strides, (1,) * axes)
    between = tuple(
        (size + low + high - reach) // stride + 1
        for size, (low, high), reach, stride in zip(
            x.shape[-axes - 1 : -1], padding, kernel.shape[:-2], strides, strict=True
        )
    )
    if residual is not None and residual.shape != (*x.shape[: -axes - 1], *between, kernel.shape[-1]):
        raise ValueError(f"conv_bias_act_pool: residual {residual.shape} is not the convolution's {between} result")
    options = {"activation": activation, "window": None, "strides": strides, "padding": padding}
    options |= {"pool_strides": None, "pool_padding": None}
    if window is not None:
        window = per_axis(window, axes, "window")
        pool_strides = window if pool_strides is None else per_axis(pool_strides, axes, "pool_strides")
        pool_padding = pairs(pool_padding, between, window, pool_strides, (1,) * axes)
        options |= {"window": window, "pool_strides": pool_strides, "pool_padding": pool_padding}
    asked = dispatch.preference(implementation)

    def apart(x, kernel, bias, residual):
        # An implementation of the fused block need not have its parts: what it lacks, plain lax does.
        names = None if asked is None else (*asked, "xla")
        y = conv(x, kernel, strides=strides, padding=padding, implementation=names)
        y = y + bias if residual is None else y + bias + residual
        y = reference.ACTIVATIONS[activation](y)
        if window is None:
            return y
        return max_pool(y, window=window, strides=pool_strides, padding=pool_padding, implementation=names)

    def fold(x, *residuals):
        residual = residuals[0] if residuals else None
        call = dispatch.call("conv_bias_act_pool", [x, kernel, residual], options, implementation)
        if dispatch.is_plain(("conv_bias_act_pool",), call):
            return apart(x, kernel, bias, residual)
        return vjp.conv_bias_act_pool(x, kernel, bias, residual, call, apart)

    return over_folded_batch(fold, x, axes, *(() if residual is None else (residual,)))
