"""The ConvLSTM's backward pass for TPUs: one kernel walks back through all steps, its state's gradient in VMEM.

The forward pass saves, packed and in x's dtype, what would otherwise be computed again: the four gates, the cell, and
hidden state and input side by side. That is 4F + F + (F + C) numbers for each pixel of each frame (F counted in whole
halves of 128 lanes), written and read while the matrix units are busy; computing the gates again instead would cost a
third matrix product beside the two that remain, of the same size.

As in the forward kernel two blocks are in work at once. One has the gradient of its gates computed; for the other, for
which those of its neighbours are there too, the products with the transposed weights give the gradient of input and
hidden state, and those with input and hidden state give the gradient of the weights.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..pallas_tpu import call
from .in_kernel import (
    from_neighbour,
    from_words,
    read_usual,
    serves_usual_layout,
    to_words,
    words_scratch,
    write_usual,
)
from .layout import Packing
from .plan import VMEM_LIMIT, Plan, make_plans, plan_with
from .tpu import State, in_usual_layout
from .walk import Walk


class Residuals(NamedTuple):
    """What the forward pass keeps: packed `[T, H, columns, sublanes, lanes]`, but for the last two.

    gates: f, i, o, g after their sigmoids and tanh. cells: c after each step. both: hidden state before each step,
    beside its input. first_c: c before the first step, `[B, H, W, F]`.
    """

    gates: jax.Array
    cells: jax.Array
    both: jax.Array
    kernel: jax.Array
    first_c: jax.Array | None

    def plan(self, shape: tuple[int, ...], rows: int | None) -> Plan:
        """The sizes with which these were saved, for outputs of this shape."""
        batch, width = shape[0], shape[3]
        split = width // self.gates.shape[2]
        packing = Packing(batch, width, 32 // self.kernel.dtype.itemsize // split, split)
        return plan_with(packing, shape, self.kernel, rows)

    def packed_first_c(self, packing: Packing) -> jax.Array:
        if self.first_c is not None:
            return packing.pack(self.first_c[:, None])[0]
        return jnp.zeros((*self.gates.shape[1:4], self.kernel.shape[-1] // 4), jnp.float32)


def conv_lstm_with_residuals(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: State | None = None,
    peephole: tuple[jax.Array, jax.Array, jax.Array] | None = None,
    rows: int | None = None,
) -> tuple[tuple[jax.Array, State], Residuals]:
    """`conv_lstm`, and what `conv_lstm_gradient` needs.

    Raises:
      Refused: see `conv_lstm`; the backward pass has to fit VMEM too.
    """
    (plan,) = make_plans(x, [kernel], rows, peephole, saves=True)
    outputs, state, saved = in_usual_layout(x, kernel, bias, initial_state, plan, saves=True)
    gates, cells, both = saved
    first_c = None if initial_state is None else initial_state[1]
    return (outputs, state), Residuals(gates, cells, both, kernel, first_c)


def conv_lstm_gradient(
    residuals: Residuals, d_outputs: jax.Array, d_state: State, *, rows: int | None = None
) -> tuple[jax.Array, jax.Array, jax.Array, State, None]:
    """Gradients of x, kernel and bias (both in float32), initial `(h, c)`, and None for the peepholes it does not have.

    d_outputs `[B, T, H, W, F]` and d_state, two arrays `[B, H, W, F]`, are in x's dtype, as are dx and those of the
    state. The state's gradients are carried from step to step in float32.
    """
    plan = residuals.plan(d_outputs.shape, rows)
    packing, usual = plan.packing, serves_usual_layout(plan)
    dx, d_kernel, d_bias, d_first = run_back(
        residuals,
        residuals.packed_first_c(packing),
        d_outputs if usual else packing.pack(d_outputs),
        packing.pack_state(d_state),
        plan,
        reads=usual,
        writes=usual,
    )
    dh, dc = packing.unpack_state(d_first)
    return dx if usual else packing.unpack(dx), d_kernel, d_bias, (dh, dc), None


def run_back(residuals: Residuals, first_c, d_outputs, d_state: State, plan: Plan, *, reads: bool, writes: bool):
    """dx, dkernel and dbias in float32, packed (dh, dc).

    first_c and d_state are packed; d_outputs is in the usual layout if it `reads` that, dx if it `writes` that.
    """
    packing, dtype = plan.packing, plan.dtype
    gates, lag = 4 * plan.gate, plan.products_lag
    # A block is written again only when no product needs it and its neighbours any more.
    walk = Walk(plan, max(plan.blocks, 2 + 2 * plan.reach), backwards=True)
    to_gate = [(0, 0)] * 3 + [(0, plan.gate - plan.features)]
    first_c, dh, dc = (jnp.pad(s.astype(jnp.float32), to_gate) for s in (first_c, *d_state))
    # The window turned by half a turn, from gates to hidden state and input.
    weights = plan.arrange_kernel(residuals.kernel)[::-1].swapaxes(1, 2).reshape(-1, plan.lanes)
    in_specs = [
        walk.usual(plan.features, 0) if reads else walk.packed(plan.features, 0),
        walk.packed(gates, 0),
        walk.packed(plan.gate, 0),
        walk.packed(plan.gate, 0, earlier=1),
        walk.packed(plan.lanes, lag),
        pl.BlockSpec(weights.shape, lambda group, step: (0, 0)),
        walk.state(plan.gate, 0, plan.steps - 1),
        walk.state(plan.gate, 0, 0),
        walk.state(plan.gate, 0, 0),
    ]
    all_sublanes = packing.groups * packing.sublanes
    dx_shape = (plan.steps, plan.height, packing.columns, all_sublanes, plan.channels)
    if writes:
        dx_shape = (packing.batch, plan.steps, plan.height, packing.width, plan.channels)
    a_state = jax.ShapeDtypeStruct((plan.height, packing.columns, all_sublanes, plan.features), dtype)
    scratch = [
        pltpu.VMEM((plan.halo_shape[0] + plan.rows, *plan.halo_shape[1:], gates), dtype),
        pltpu.VMEM((plan.blocks + 1, plan.area, 2 * plan.gate), jnp.float32),
    ]
    if reads:
        scratch.append(words_scratch(plan, plan.features))
    if writes:
        scratch.append(words_scratch(plan, plan.channels))
    dx, d_kernel, d_bias, dh, dc = call(
        partial(_kernel, walk=walk, reads=reads, writes=writes),
        grid=(packing.groups, walk.steps + lag),
        in_specs=in_specs,
        out_specs=[
            walk.usual(plan.channels, lag) if writes else walk.packed(plan.channels, lag),
            pl.BlockSpec((None, plan.lanes, plan.taps * gates), lambda group, step: (group, 0, 0)),
            pl.BlockSpec((None, 1, gates), lambda group, step: (group, 0, 0)),
            walk.state(plan.features, lag, plan.steps - 1),
            walk.state(plan.features, 0, plan.steps - 1),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(dx_shape, dtype),
            jax.ShapeDtypeStruct((packing.groups, plan.lanes, plan.taps * gates), jnp.float32),
            jax.ShapeDtypeStruct((packing.groups, 1, gates), jnp.float32),
            a_state,
            a_state,
        ],
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
        name="conv_lstm_gradient",
    )(
        d_outputs, residuals.gates, residuals.cells, residuals.cells, residuals.both, weights, first_c,
        dh, dc,
    )  # fmt: skip
    d_kernel = d_kernel.sum(0).reshape(plan.lanes, plan.taps, gates).swapaxes(0, 1)[::-1]
    return dx, plan.restore_kernel(d_kernel), plan.restore_bias(d_bias.sum(0)), (dh, dc)


def _kernel(
    d_out_ref, gates_ref, cells_ref, cells_before_ref, both_ref, weights_ref, first_c_ref, last_dh_ref, last_dc_ref,
    dx_ref, d_kernel_ref, d_bias_ref, first_dh_ref, first_dc_ref,
    d_gates, d_state, *words,
    walk: Walk, reads: bool, writes: bool,
):  # fmt: skip
    """d_gates: the gates' gradients of a frame within zeros. d_state: dh beside dc. Both have a spare block."""
    plan = walk.plan
    packing, columns, dtype = plan.packing, plan.packing.columns, plan.dtype
    (top, left), right = plan.after, plan.before[1]  # of the turned window
    blocks, area, gate, features = plan.blocks, plan.area, plan.gate, plan.features
    shape = (plan.rows, columns, packing.sublanes)
    step = pl.program_id(1)
    lag = plan.products_lag
    lasts = step < walk.steps

    @pl.when(step == 0)
    def _():
        d_bias_ref[...] = jnp.zeros_like(d_bias_ref)

        def clear(row, _):
            d_gates[pl.ds(row, 1)] = jnp.zeros((1, *d_gates.shape[1:]), dtype)

        lax.fori_loop(0, d_gates.shape[0], clear, None)

    @pl.when(step < blocks)
    def _():
        d_state[step, :, :gate] = last_dh_ref[...].reshape(area, gate)
        d_state[step, :, gate:] = last_dc_ref[...].reshape(area, gate)

    # The first products are of nothing that counts.
    @pl.when(step == lag)
    def _():
        def clear(row, _):
            rows = pl.ds(pl.multiple_of(row * 8, 8), 8)
            d_kernel_ref[rows] = jnp.zeros((8, plan.taps * 4 * gate), jnp.float32)

        lax.fori_loop(0, plan.lanes // 8, clear, None)

    def wide(value):
        return value.astype(jnp.float32).reshape(area, -1)

    def gates_of_block(frame, block):
        """Gradients of the block's gates before their nonlinearity; past the end they go to the spare block."""
        into = jnp.where(lasts, block, blocks)
        if reads:
            to_words(d_out_ref[...], words[0])
            d_out = read_usual(words[0], plan, range(plan.rows))
        else:
            d_out = d_out_ref[...]
        d_out = wide(d_out)
        if features < gate:
            d_out = jnp.concatenate([d_out, jnp.zeros((area, gate - features), jnp.float32)], 1)
        gates = wide(gates_ref[...])
        forget_input, output, cell = gates[:, : 2 * gate], gates[:, 2 * gate : 3 * gate], gates[:, 3 * gate :]
        before = wide(cells_before_ref[...])
        before = jnp.where(frame == plan.steps - 1, first_c_ref[...].reshape(area, gate), before)
        tanh_c = jnp.tanh(wide(cells_ref[...]))
        dh = d_state[block, :, :gate] + d_out
        d_output = dh * tanh_c
        dc = d_state[block, :, gate:] + output * (dh - d_output * tanh_c)
        d_forget_input = jnp.concatenate([dc * before, dc * cell], 1) * forget_input * (1 - forget_input)
        d_output = d_output * output * (1 - output)
        d_cell = dc * forget_input[:, gate:] * (1 - cell * cell)
        d_state[into, :, gate:] = dc * forget_input[:, :gate]
        every = jnp.concatenate([d_forget_input, d_output, d_cell], 1)
        d_bias_ref[...] += jnp.where(lasts, every.sum(0, keepdims=True), 0.0)
        return into, every.astype(dtype).reshape(*shape, 4 * gate)

    def put(into, value):
        # The spare block lies below the border.
        here = pl.ds(jnp.where(lasts, top + into * plan.rows, plan.halo_shape[0]), plan.rows)
        d_gates[here, left : left + columns] = value
        if packing.split > 1 and left:
            d_gates[here, :left] = from_neighbour(value[:, columns - left :], packing, 1)
        if packing.split > 1 and right:
            d_gates[here, left + columns :] = from_neighbour(value[:, :right], packing, -1)

    def products_of_block(frame, block):
        taps = [
            d_gates[pl.ds(block * plan.rows + i, plan.rows), j : j + columns].reshape(area, 4 * gate)
            for i in range(plan.window[0])
            for j in range(plan.window[1])
        ]
        taps = jnp.concatenate(taps, 1)
        multiply = partial(jnp.dot, preferred_element_type=jnp.float32, precision=plan.precision)
        d_both = multiply(taps, weights_ref[...])
        d_kernel_ref[...] += multiply(both_ref[...].reshape(area, plan.lanes).T, taps)
        d_state[block, :, :gate] = d_both[:, :gate]
        dx = d_both[:, gate : gate + plan.channels].astype(dtype).reshape(*shape, plan.channels)
        if writes:
            write_usual(dx, words[-1], plan, range(plan.rows))
        dx_ref[...] = from_words(words[-1], plan) if writes else dx

    gates_at, products_at = walk.at(step, 0), walk.at(step, lag)
    if walk.frame_blocks == blocks:
        into, value = gates_of_block(*gates_at)
        products_of_block(*products_at)
        put(into, value)
    else:
        # A frame of few blocks: some steps go by until it is done with.
        @pl.when(gates_at[1] < blocks)
        def _():
            put(*gates_of_block(*gates_at))

        pl.when(products_at[1] < blocks)(partial(products_of_block, *products_at))

    last_frame = (plan.steps - 1) * walk.frame_blocks

    @pl.when((step >= last_frame) & (step < last_frame + blocks))
    def _():
        dc = d_state[step - last_frame, :, gate:]
        first_dc_ref[...] = dc.reshape(*shape, gate)[..., :features].astype(dtype)

    @pl.when((step >= last_frame + lag) & (step < last_frame + lag + blocks))
    def _():
        dh = d_state[step - lag - last_frame, :, :gate]
        first_dh_ref[...] = dh.reshape(*shape, gate)[..., :features].astype(dtype)
