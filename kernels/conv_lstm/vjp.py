"""The kernels' ConvLSTM with its gradient, on the part of the batch that each device has.

The forward pass saves what the backward pass needs with the batch packed among other axes, which no sharding can tell.
So where the batch is split, each device saves nothing and computes its own again on the way back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .. import reference
from ..dispatch import Refused, cotangent
from ..over_batch import Role, over_batch
from . import stack, tpu, tpu_gradient

type State = tuple[jax.Array, jax.Array]
type Layer = tuple[jax.Array, jax.Array]


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: State | None,
    peephole: tuple[jax.Array, jax.Array, jax.Array] | None,
) -> tuple[jax.Array, State]:
    """`reference.conv_lstm` by the TPU kernels.

    Raises:
      Refused: see `tpu.conv_lstm`.
    """
    if peephole is not None:
        raise Refused("conv_lstm has no peepholes in a kernel: three more arrays of a frame's size would fill VMEM")
    return _layer(x, kernel, bias, initial_state)


def conv_lstm_stack(x: jax.Array, layers: Sequence[Layer]) -> tuple[jax.Array, list[State]]:
    """`reference.conv_lstm_stack` by the TPU kernels.

    Raises:
      Refused: see `stack.conv_lstm_stack`.
    """
    return _stack(x, [tuple(layer) for layer in layers])


def _differentiable(
    roles: tuple[Role, ...],
    gradient_roles: tuple[Role, ...],
    forward: Callable[..., Any],
    saving: Callable[..., Any],
    gradient: Callable[..., Any],
    plain: Callable[..., Any],
) -> Callable[..., Any]:
    """`forward(*operands)` with its gradient.

    `saving(*operands)` gives the result and the residuals, from which `gradient(operands, residuals, cotangents)`
    makes the operands' gradients. `plain` is the same function of lax, for what fits VMEM forwards only.
    """

    @jax.custom_vjp
    def function(*operands):
        return over_batch(forward, operands, roles, ("batch", "batch"))

    def saved(*operands):
        result, residuals = saving(*operands)
        return *result, residuals

    def keep(*operands):
        def when_split(*operands):
            nothing = jax.tree.map(lambda _: 0, jax.eval_shape(saved, *operands)[2])
            return *forward(*operands), nothing

        try:
            outputs, state, residuals = over_batch(saved, operands, roles, ("batch", "batch", "kept"), when_split)
        except Refused:
            (outputs, state), residuals = function(*operands), None
        return (outputs, state), (operands, residuals)

    def back(kept, cotangents):
        operands, residuals = kept
        if residuals is None:
            return jax.vjp(plain, *operands)[1](cotangents)

        def from_residuals(operands, residuals, *cotangents):
            return gradient(operands, residuals, cotangents)

        def when_split(operands, residuals, *cotangents):
            return gradient(operands, saving(*operands)[1], cotangents)

        # over_batch takes a role for each member, so the operands go one by one.
        count = len(operands)

        def spread(function):
            return lambda *all_: function(all_[:count], *all_[count:])

        gradients = over_batch(
            spread(from_residuals),
            (*operands, residuals, *cotangents),
            (*roles, "shared", "batch", "batch"),
            gradient_roles,
            spread(when_split),
        )
        return jax.tree.map(cotangent, operands, gradients)

    function.defvjp(keep, back)
    return function


def _layer_gradient(operands, residuals, cotangents):
    dx, dkernel, dbias, dstate, _ = tpu_gradient.conv_lstm_gradient(residuals, *cotangents)
    return dx, dkernel, dbias, None if operands[3] is None else dstate


_layer = _differentiable(
    ("batch", "shared", "shared", "batch"),
    ("batch", "sum", "sum", "batch"),
    lambda x, kernel, bias, state: tpu.conv_lstm(x, kernel, bias, initial_state=state),
    lambda x, kernel, bias, state: tpu_gradient.conv_lstm_with_residuals(x, kernel, bias, initial_state=state),
    _layer_gradient,
    lambda x, kernel, bias, state: reference.conv_lstm(x, kernel, bias, initial_state=state),
)

_stack = _differentiable(
    ("batch", "shared"),
    ("batch", "sum"),
    stack.conv_lstm_stack,
    stack.conv_lstm_stack_with_residuals,
    lambda operands, residuals, cotangents: stack.conv_lstm_stack_gradient(residuals, *cotangents),
    reference.conv_lstm_stack,
)
