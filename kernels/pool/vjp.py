"""The gradients of pooling, as operations that have implementations of their own."""

from functools import partial

import jax

from ..dispatch import Call, cotangent, run


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, call: Call) -> jax.Array:
    return run("max_pool", (x,), call)


def _max_pool_forward(x, call):
    out = run("max_pool", (x,), call)
    return out, (x, out)


def _max_pool_backward(call, residuals, g):
    x, out = residuals
    return (cotangent(x, run("max_pool_gradient", (x, out, g), call)),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def avg_pool(x: jax.Array, call: Call) -> jax.Array:
    return run("avg_pool", (x,), call)


def _avg_pool_forward(x, call):
    # The gradient needs x's shape and nothing else; an array without a single value carries it through jit.
    return run("avg_pool", (x,), call), x[:0]


def _avg_pool_backward(call, empty, g):
    return (cotangent(empty, run("avg_pool_gradient", (g,), call, spatial=empty.shape[1:-1])),)


avg_pool.defvjp(_avg_pool_forward, _avg_pool_backward)
