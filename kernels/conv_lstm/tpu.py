"""ConvLSTM for TPUs: one kernel runs all steps, and its state never leaves VMEM.

The grid walks over blocks of image rows, frame after frame, and works on three blocks at once, none of which needs
another: it lays out the input of a block (in the usual layout or the packed one), multiplies the block before by the
weights, and turns the products of the block before that into the new cell and hidden state. So the matrix units never
wait for the gates. Hidden state and input lie side by side in the lanes, with a border of zeros, twice: the hidden
state of one frame is read while that of the next one is written.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..pallas_tpu import call
from .in_kernel import from_neighbour, read_usual, serves_usual_layout, words_scratch, write_usual
from .layout import LANES
from .plan import VMEM_LIMIT, Plan, make_plans
from .walk import Walk

State = tuple[jax.Array, jax.Array]


def conv_lstm(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    initial_state: State | None = None,
    peephole: tuple[jax.Array, jax.Array, jax.Array] | None = None,
    rows: int | None = None,
) -> tuple[jax.Array, State]:
    """`reference.conv_lstm`, all steps in one kernel. `rows`: image rows of one matrix product, a divisor of H.

    Raises:
      Refused: peepholes, dtypes other than float32 and bfloat16, and states that do not fit VMEM.
    """
    (plan,) = make_plans(x, [kernel], rows, peephole, saves=False)
    outputs, state, _ = in_usual_layout(x, kernel, bias, initial_state, plan, saves=False)
    return outputs, state


def in_usual_layout(x, kernel, bias, initial_state, plan: Plan, *, saves: bool):
    usual, packing = serves_usual_layout(plan), plan.packing
    state = None if initial_state is None else packing.pack_state(initial_state)
    x = x if usual else packing.pack(x)
    outputs, c, saved = run(x, kernel, bias, state, plan, reads=usual, writes=usual, saves=saves)
    if not usual:
        outputs = packing.unpack(outputs)
    return outputs, (outputs[:, -1], packing.unpack(c[None])[:, 0].astype(x.dtype)), saved


def run(x, kernel, bias, state: State | None, plan: Plan, *, reads: bool, writes: bool, saves: bool):
    """One layer over x `[T, H, columns, groups * sublanes, C]`, or `[B, T, H, W, C]` if it `reads` the usual layout.

    state: packed (h, c), each `[H, columns, groups * sublanes, F]`. Returns the outputs, in the usual layout if it
    `writes` that, the packed float32 final c, and what the backward pass needs if it `saves` that: gates, cells, and
    hidden state and input.
    """
    packing, dtype = plan.packing, plan.dtype
    walk = Walk(plan, max(plan.blocks, plan.gates_lag), backwards=False)
    gates, all_sublanes = 4 * plan.gate, packing.groups * packing.sublanes
    weights = plan.halve_sigmoids(plan.arrange_kernel(kernel)).reshape(-1, gates)
    in_specs = [
        walk.usual(plan.channels, 0) if reads else walk.packed(plan.channels, 0),
        pl.BlockSpec(weights.shape, lambda group, step: (0, 0)),
        pl.BlockSpec((1, gates), lambda group, step: (0, 0)),
    ]
    operands = [x, weights, plan.halve_sigmoids(plan.arrange_bias(bias))]
    if state is not None:
        h, c = (jnp.pad(s, [(0, 0)] * 3 + [(0, plan.gate - plan.features)]) for s in state)
        operands += [h.astype(dtype), c.astype(jnp.float32)]
        in_specs += [walk.state(plan.gate, 0, 0), walk.state(plan.gate, plan.gates_lag, 0)]

    def packed_shape(channels):
        return jax.ShapeDtypeStruct((plan.steps, plan.height, packing.columns, all_sublanes, channels), dtype)

    if writes:
        shape = (packing.batch, plan.steps, plan.height, packing.width, plan.features)
        outputs = jax.ShapeDtypeStruct(shape, dtype)
        out_specs = [walk.usual(plan.features, plan.gates_lag)]
    else:
        outputs, out_specs = packed_shape(plan.features), [walk.packed(plan.features, plan.gates_lag)]
    out_shape = [
        outputs,
        jax.ShapeDtypeStruct((plan.height, packing.columns, all_sublanes, plan.features), jnp.float32),
    ]
    out_specs.append(walk.state(plan.features, plan.gates_lag, plan.steps - 1))
    if saves:
        out_shape += [packed_shape(gates), packed_shape(plan.gate), packed_shape(plan.lanes)]
        out_specs += [
            walk.packed(gates, plan.gates_lag),
            walk.packed(plan.gate, plan.gates_lag),
            walk.packed(plan.lanes, plan.products_lag),
        ]
    scratch = [
        pltpu.VMEM((2, *plan.halo_shape, plan.lanes), dtype),
        pltpu.VMEM((plan.blocks, plan.area, plan.gate), jnp.float32),
        pltpu.VMEM((2, plan.area, gates), jnp.float32),
    ]
    if reads:
        scratch.append(words_scratch(plan, plan.channels))
    if writes:
        scratch.append(words_scratch(plan, plan.features))
    outputs, c, *saved = call(
        partial(_kernel, walk=walk, reads=reads, writes=writes, starts=state is not None, saves=saves),
        grid=(packing.groups, walk.steps + plan.gates_lag),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
        name="conv_lstm",
    )(*operands)
    return outputs, c, saved


def _kernel(*refs, walk: Walk, reads: bool, writes: bool, starts: bool, saves: bool):
    refs = list(refs)
    x_ref, weights_ref, bias_ref = refs[:3]
    del refs[:3]
    if starts:
        first_h_ref, first_c_ref = refs[:2]
        del refs[:2]
    out_ref, last_c_ref = refs[:2]
    del refs[:2]
    if saves:
        gates_ref, cells_ref, both_ref = refs[:3]
        del refs[:3]
    both, cells, products = refs[:3]  # hidden state beside input, for even and odd frames; c; products of two steps
    plan = walk.plan
    packing, columns, dtype = plan.packing, plan.packing.columns, plan.dtype
    top, left = plan.before
    right = plan.after[1]
    blocks, area, gate = plan.blocks, plan.area, plan.gate
    step = pl.program_id(1)

    def put(parity, block, value, lanes):
        """`[rows, columns, sublanes, n]` into the frame, and its outer columns beside the parts that they border on."""
        here = pl.ds(top + block * plan.rows, plan.rows)
        both[parity, here, left : left + columns, :, lanes] = value
        if packing.split > 1 and left:
            both[parity, here, :left, :, lanes] = from_neighbour(value[:, columns - left :], packing, 1)
        if packing.split > 1 and right:
            both[parity, here, left + columns :, :, lanes] = from_neighbour(value[:, :right], packing, -1)

    @pl.when(step == 0)
    def _():
        def clear(row, _):
            both[:, pl.ds(row, 1)] = jnp.zeros((2, 1, *both.shape[2:]), dtype)

        jax.lax.fori_loop(0, both.shape[1], clear, None)

    # Not at the first step: until `gates_lag`, gates are made of products that are not there yet, and spoil some cells.
    if starts:

        @pl.when(step < blocks)
        def _():
            put(0, step, first_h_ref[...], slice(0, gate))

        @pl.when((step >= plan.gates_lag) & (step < plan.gates_lag + blocks))
        def _():
            cells[step - plan.gates_lag] = first_c_ref[...].reshape(area, gate)

    else:

        @pl.when(step == plan.gates_lag)
        def _():
            def clear(block, _):
                cells[block] = jnp.zeros((area, gate), jnp.float32)

            jax.lax.fori_loop(0, blocks, clear, None)

    def gates_of_block(frame, block):
        gates = jnp.tanh(products[(step + 1) & 1] + bias_ref[...])
        forget_input = 0.5 * gates[:, : 2 * gate] + 0.5
        output = 0.5 * gates[:, 2 * gate : 3 * gate] + 0.5
        if gate < LANES:
            added = (forget_input * gates[:, 2 * gate :])[:, gate:]  # a rotation of the product instead of both factors
        else:
            added = forget_input[:, gate:] * gates[:, 3 * gate :]
        c = forget_input[:, :gate] * cells[block] + added
        cells[block] = c
        h = output * jnp.tanh(c)
        shape = (plan.rows, columns, packing.sublanes)
        if saves:
            gates_ref[..., : 2 * gate] = forget_input.astype(dtype).reshape(*shape, 2 * gate)
            output_cell = jnp.concatenate([output, gates[:, 3 * gate :]], 1)
            gates_ref[..., 2 * gate :] = output_cell.astype(dtype).reshape(*shape, 2 * gate)
            cells_ref[...] = c.astype(dtype).reshape(*shape, gate)
        h = h.astype(dtype).reshape(*shape, gate)
        value = h[..., : plan.features]
        out_ref[...] = write_usual(value, refs[-1], plan) if writes else value
        return h

    def products_of_block(frame, block):
        parity = frame & 1
        taps = [
            both[parity, pl.ds(block * plan.rows + i, plan.rows), j : j + columns].reshape(area, plan.lanes)
            for i in range(plan.window[0])
            for j in range(plan.window[1])
        ]
        products[step & 1] = jnp.dot(
            jnp.concatenate(taps, 1), weights_ref[...], preferred_element_type=jnp.float32, precision=plan.precision
        )
        if saves:
            here = pl.ds(top + block * plan.rows, plan.rows)
            both_ref[...] = both[parity, here, left : left + columns]

    def input_of_block(frame, block):
        lanes = slice(gate, gate + plan.channels)
        if not reads:
            put(frame & 1, block, x_ref[...], lanes)
            return
        value = jnp.stack([jnp.stack(row) for row in read_usual(x_ref[...], refs[3], plan)])
        put(frame & 1, block, value, lanes)

    # In this order the compiler sees that they do not wait for each other: it cannot tell one half of `both` from the
    # other, so all reads of it come first.
    gates_at, products_at, input_at = (walk.at(step, lag) for lag in (plan.gates_lag, plan.products_lag, 0))
    if walk.frame_blocks == blocks:
        h = gates_of_block(*gates_at)
        products_of_block(*products_at)
        input_of_block(*input_at)
        put((gates_at[0] + 1) & 1, gates_at[1], h, slice(0, gate))
    else:
        # A frame of few blocks: some steps go by until what the next frame needs is there.
        @pl.when(gates_at[1] < blocks)
        def _():
            put((gates_at[0] + 1) & 1, gates_at[1], gates_of_block(*gates_at), slice(0, gate))

        pl.when(products_at[1] < blocks)(partial(products_of_block, *products_at))
        pl.when(input_at[1] < blocks)(partial(input_of_block, *input_at))

    @pl.when(step - plan.gates_lag >= (plan.steps - 1) * walk.frame_blocks)
    def _():
        block = jnp.minimum(gates_at[1], blocks - 1)
        c = cells[block].reshape(plan.rows, columns, packing.sublanes, gate)
        last_c_ref[...] = c[..., : plan.features]
