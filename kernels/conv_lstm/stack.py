"""Several ConvLSTM layers, one upon the other, whose frames stay in the packed layout from layer to layer."""

from collections.abc import Sequence

import jax

from .in_kernel import serves_usual_layout
from .plan import Plan, make_plans
from .tpu import State, run
from .tpu_gradient import Residuals, run_back

Layer = tuple[jax.Array, jax.Array]


def conv_lstm_stack(x: jax.Array, layers: Sequence[Layer], *, rows: int | None = None) -> tuple[jax.Array, list[State]]:
    """x `[B, T, H, W, C]` through layers `(kernel, bias)`, each a `conv_lstm` of the outputs of the one before.

    The first layer reads the usual layout and the last one writes it. All start at zero. Returns the last layer's
    outputs and every layer's final `(h, c)`.

    Raises:
      Refused: what one of the layers cannot serve.
    """
    outputs, states, _ = _forward(x, layers, make_plans(x, [kernel for kernel, _ in layers], rows, saves=False), False)
    return outputs, states


def conv_lstm_stack_with_residuals(
    x: jax.Array, layers: Sequence[Layer], *, rows: int | None = None
) -> tuple[tuple[jax.Array, list[State]], list[Residuals]]:
    """`conv_lstm_stack`, and what its gradient needs."""
    plans = make_plans(x, [kernel for kernel, _ in layers], rows, saves=True)
    outputs, states, residuals = _forward(x, layers, plans, True)
    return (outputs, states), residuals


def conv_lstm_stack_gradient(
    residuals: Sequence[Residuals], d_outputs: jax.Array, d_states: Sequence[State], *, rows: int | None = None
) -> tuple[jax.Array, list[Layer]]:
    """Gradients of x, and in float32 of every layer's kernel and bias, from those of the results of the stack."""
    plans = [residual.plan(d_outputs.shape, rows) for residual in residuals]
    packing, usual = plans[-1].packing, serves_usual_layout(plans[-1])
    gradient = d_outputs if usual else packing.pack(d_outputs)
    layers: list[Layer] = []
    for number in reversed(range(len(plans))):
        residual, first = residuals[number], number == 0
        gradient, d_kernel, d_bias, _ = run_back(
            residual,
            residual.packed_first_c(packing),
            gradient,
            packing.pack_state(d_states[number]),
            plans[number],
            reads=usual and number == len(plans) - 1,
            writes=usual and first,
        )
        layers.insert(0, (d_kernel, d_bias))
    return gradient if usual else packing.unpack(gradient), layers


def _forward(x: jax.Array, layers: Sequence[Layer], plans: Sequence[Plan], saves: bool):
    packing, usual = plans[0].packing, serves_usual_layout(plans[0])
    last = len(layers) - 1
    frames = x if usual else packing.pack(x)
    states, residuals = [], []
    for number, ((kernel, bias), plan) in enumerate(zip(layers, plans, strict=True)):
        writes = usual and number == last
        frames, state, saved = run(
            frames, kernel, bias, None, plan, reads=usual and number == 0, writes=writes, saves=saves
        )
        states.append(state if writes else packing.unpack_state(state))
        if saves:
            gates, cells, both = saved
            residuals.append(Residuals(gates, cells, both, kernel, None))
    return (frames if usual else packing.unpack(frames)), states, residuals
