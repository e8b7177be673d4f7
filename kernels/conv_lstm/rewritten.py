"""The ConvLSTM for CPUs: each step convolves input and hidden state side by side, in the form that is best for that.

The input's share of the gates over all frames at once, as `reference` has it, is written and read again, four numbers
for each of the hidden state: 10 frames of 64x64 with 64 channels and as many hidden ones took 1.5 times as long.
On the way back only the state's gradient goes from step to step. Those of input and weights are taken of all frames at
once, from the gates that the way there keeps.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import reference
from ..conv import conv
from ..dispatch import cotangent
from . import Peephole, State


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: State | None,
    peephole: Peephole | None = None,
) -> tuple[jax.Array, State]:
    """`reference.conv_lstm`."""
    state = reference.conv_lstm_state(x, kernel) if initial_state is None else initial_state
    return _sequence(x, kernel, bias, state, peephole)


conv_lstm_stack = partial(reference.conv_lstm_stack, layer=conv_lstm)

_convolve = partial(conv, strides=(1, 1), padding="SAME", dilation=(1, 1), groups=1)


@jax.custom_vjp
def _sequence(x: jax.Array, kernel: jax.Array, bias: jax.Array, state: State, peephole: Peephole | None) -> Any:
    outputs, state, _ = _steps(x, kernel, bias, state, peephole, keep=False)
    return jnp.moveaxis(outputs, 0, 1), state


def _steps(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, state: State, peephole: Peephole | None, *, keep: bool
) -> tuple[jax.Array, State, Any]:
    """Outputs `[T, B, H, W, F]`, the last state and, to `keep`, each step's gates and the cell before it."""
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def step(state: State, frame: jax.Array) -> tuple[State, Any]:
        h, c = state
        gates = _convolve(lax.concatenate([frame, h], 3), kernel).astype(wide) + bias
        new_h, new_c = reference.conv_lstm_cell(gates, c, peephole)
        new_h = new_h.astype(x.dtype)
        return (new_h, new_c), (new_h, (gates, c) if keep else None)

    h, c = state
    carry = h.astype(x.dtype), c.astype(wide)
    (h, c), (outputs, kept) = lax.scan(step, carry, jnp.moveaxis(x, 1, 0))
    return outputs, (h, c.astype(x.dtype)), kept


def _keep(x: jax.Array, kernel: jax.Array, bias: jax.Array, state: State, peephole: Peephole | None) -> Any:
    outputs, last, kept = _steps(x, kernel, bias, state, peephole, keep=True)
    return (jnp.moveaxis(outputs, 0, 1), last), ((x, kernel, bias, state, peephole), outputs, kept)


def _back(residuals: Any, cotangents: Any) -> Any:
    operands, outputs, kept = residuals
    x, kernel, _, state, peephole = operands
    of_outputs, (of_h, of_c) = cotangents
    channels, wide = x.shape[-1], kept[1].dtype

    def step(carry: Any, of_step: Any) -> Any:
        of_h, of_c, of_peephole = carry
        of_output, (gates, c) = of_step
        back = jax.vjp(reference.conv_lstm_cell, gates, c, peephole)[1]
        of_gates, of_c, more = back(((of_h + of_output).astype(wide), of_c))
        of_gates = of_gates.astype(x.dtype)
        (of_h,) = jax.vjp(lambda h: _convolve(h, kernel[:, :, channels:]), of_h)[1](of_gates)
        return (of_h, of_c, jax.tree.map(jnp.add, of_peephole, more)), of_gates

    carry = of_h, of_c.astype(wide), jax.tree.map(jnp.zeros_like, peephole)
    steps = jnp.moveaxis(of_outputs, 1, 0), kept
    (of_h, of_c, of_peephole), of_gates = lax.scan(step, carry, steps, reverse=True)
    frames = jnp.moveaxis(x, 1, 0)
    (of_x,) = jax.vjp(lambda x: _convolve(x, kernel[:, :, :channels]), frames)[1](of_gates)
    before = lax.concatenate([state[0].astype(x.dtype)[None], outputs[:-1]], 0)
    seen = lax.concatenate([frames, before], 4)
    (of_kernel,) = jax.vjp(partial(_convolve, seen), kernel)[1](of_gates)
    of_bias = of_gates.sum((0, 1, 2, 3), wide)
    return jax.tree.map(cotangent, operands, (jnp.moveaxis(of_x, 0, 1), of_kernel, of_bias, (of_h, of_c), of_peephole))


_sequence.defvjp(_keep, _back)
