"""The gradients of depthwise convolution, as operations that have implementations of their own."""

from functools import partial

import jax

from ..dispatch import Call, cotangent, run


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, call: Call) -> jax.Array:
    return run("depthwise_conv", (x, kernel), call)


def _depthwise_forward(x, kernel, call):
    return run("depthwise_conv", (x, kernel), call), (x, kernel)


def _depthwise_backward(call, residuals, g):
    x, kernel = residuals
    dx = run("depthwise_conv_input_gradient", (g, kernel), call, spatial=x.shape[1:-1])
    dkernel = run("depthwise_conv_weight_gradient", (x, g), call, window=kernel.shape[:-2])
    return cotangent(x, dx), cotangent(kernel, dkernel)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)
