"""ConvLSTM over a whole sequence, one layer or a stack of them."""

from collections.abc import Sequence

import jax

from .. import dispatch, reference
from ..arguments import check_floating

type State = tuple[jax.Array, jax.Array]
type Peephole = tuple[jax.Array, jax.Array, jax.Array]


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: State | None = None,
    peephole: Peephole | None = None,
    implementation: str | Sequence[str] | None = None,
) -> tuple[jax.Array, State]:
    """A sequence through one ConvLSTM layer (Shi et al. 2015, arXiv:1506.04214).

    x `[B, T, H, W, C]`, kernel `[kh, kw, C + F, 4F]` over input and hidden state side by side, bias `[4F]`; gates in
    the order input, forget, cell, output. Returns outputs `[B, T, H, W, F]` and the final state `(h, c)`, each
    `[B, H, W, F]`; the state starts at zero unless `initial_state` is given. `peephole` holds what the input, forget
    and output gates see of the cell, each broadcastable to `[H, W, F]`. The cell is carried in float32.

    Raises:
      ValueError: shapes or dtypes that do not fit, or no implementation asked for serves the call.
    """
    _check(x, kernel, bias)
    for state in initial_state or ():
        if state.shape != (x.shape[0], *x.shape[2:4], bias.shape[0] // 4):
            raise ValueError(f"conv_lstm: a state {state.shape} does not fit x {x.shape} and bias {bias.shape}")
    options = {"peephole": None if peephole is None else True}
    call = dispatch.call("conv_lstm", [x, kernel], options, implementation)
    arrays = {"initial_state": initial_state, "peephole": peephole}
    if dispatch.is_plain(("conv_lstm",), call):
        return reference.conv_lstm(x, kernel, bias, **arrays)
    return dispatch.run("conv_lstm", (x, kernel, bias), call, **arrays)


def conv_lstm_stack(
    x: jax.Array,
    layers: Sequence[tuple[jax.Array, jax.Array]],
    *,
    implementation: str | Sequence[str] | None = None,
) -> tuple[jax.Array, list[State]]:
    """A sequence through ConvLSTM layers, each on the outputs of the one before, all states starting at zero.

    layers: (kernel, bias) of each, as in `conv_lstm`. Returns the last layer's outputs `[B, T, H, W, F]` and every
    layer's final `(h, c)`. The TPU kernels keep their packed layout from layer to layer, and convert once.

    Raises:
      ValueError: as `conv_lstm`, or no layers.
    """
    if not layers:
        raise ValueError("conv_lstm_stack needs at least one layer, got none")
    below = x
    for kernel, bias in layers:
        _check(below, kernel, bias)
        below = jax.ShapeDtypeStruct((*x.shape[:-1], bias.shape[0] // 4), x.dtype)
    call = dispatch.call("conv_lstm_stack", [x, *(kernel for kernel, _ in layers)], {}, implementation)
    if dispatch.is_plain(("conv_lstm_stack",), call):
        return reference.conv_lstm_stack(x, layers)
    return dispatch.run("conv_lstm_stack", (x, layers), call)


def _check(x, kernel: jax.Array, bias: jax.Array) -> None:
    fits = x.ndim == 5 and kernel.ndim == 4 and bias.ndim == 1 and kernel.shape[-1] == bias.shape[0]
    if not fits or bias.shape[0] % 4 or kernel.shape[2] != x.shape[-1] + bias.shape[0] // 4:
        wants = "wants a kernel [kh, kw, C + F, 4F] and a bias [4F]"
        raise ValueError(f"conv_lstm: x {x.shape} {wants}, not {kernel.shape} and {bias.shape}")
    check_floating("conv_lstm", x=x, kernel=kernel)
