"""The gradients of convolution, as operations that have implementations of their own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from ..dispatch import Call, cotangent, run


def _convolution(operation: str) -> Callable[[jax.Array, jax.Array, Call], jax.Array]:
    """An operation of x and kernel, with its input and weight gradients, of the same name, for a gradient."""

    @partial(jax.custom_vjp, nondiff_argnums=(2,))
    def function(x: jax.Array, kernel: jax.Array, call: Call) -> jax.Array:
        return run(operation, (x, kernel), call)

    def forward(x, kernel, call):
        return function(x, kernel, call), (x, kernel)

    def backward(call, residuals, g):
        x, kernel = residuals
        dx = run(f"{operation}_input_gradient", (g, kernel), call, spatial=x.shape[1:-1])
        dkernel = run(f"{operation}_weight_gradient", (x, g), call, window=kernel.shape[:-2])
        return cotangent(x, dx), cotangent(kernel, dkernel)

    function.defvjp(forward, backward)
    return function


conv = _convolution("conv")
depthwise_conv = _convolution("depthwise_conv")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(x: jax.Array, kernel: jax.Array, call: Call, spatial: tuple[int, ...]) -> jax.Array:
    """What `conv` from `spatial` with this kernel `[*window, F, C]` has as its input gradient for a cotangent x."""
    return run("conv_input_gradient", (x, kernel), call, spatial=spatial)


def _conv_transpose_forward(x, kernel, call, spatial):
    return conv_transpose(x, kernel, call, spatial), (x, kernel)


def _conv_transpose_backward(call, spatial, residuals, g):
    x, kernel = residuals
    dx = run("conv", (g, kernel), call)
    dkernel = run("conv_weight_gradient", (g, x), call, window=kernel.shape[:-2])
    return cotangent(x, dx), cotangent(kernel, dkernel)


conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def conv_bias_act_pool(x, kernel, bias, residual, call: Call, apart: Any) -> jax.Array:
    """The fused block; `apart(x, kernel, bias, residual)` is the same of separate operations, whose gradient it has."""
    return run("conv_bias_act_pool", (x, kernel, bias, residual), call)


def _fused_forward(x, kernel, bias, residual, call, apart):
    return conv_bias_act_pool(x, kernel, bias, residual, call, apart), (x, kernel, bias, residual)


def _fused_backward(call, apart, operands, g):
    # The convolution is computed again: kept, it would cost the very traffic that the fusion saves.
    return jax.vjp(apart, *operands)[1](g)


conv_bias_act_pool.defvjp(_fused_forward, _fused_backward)
