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
from .in_kernel import from_neighbour, from_words, read_usual, serves_usual_layout, to_words, words_scratch, write_usual
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
    outputs, state, saved = run(x, kernel, bias, state, plan, reads=usual, writes=usual, saves=saves)
    if not usual:
        outputs, state = packing.unpack(outputs), packing.unpack_state(state)
    return outputs, state, saved


def run(x, kernel, bias, state: State | None, plan: Plan, *, reads: bool, writes: bool, saves: bool):
    """One layer over x `[T, H, columns, groups * sublanes, C]`, or `[B, T, H, W, C]` if it `reads` the usual layout.

    state: packed (h, c), each `[H, columns, groups * sublanes, F]`. Returns the outputs, in the usual layout if it
    `writes` that, the final (h, c) likewise, and what the backward pass needs if it `saves` that: gates, cells, and
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
        out_shape = [jax.ShapeDtypeStruct(shape, dtype), *[jax.ShapeDtypeStruct((shape[0], *shape[2:]), dtype)] * 2]
        out_specs = [walk.usual(plan.features, plan.gates_lag)]
    else:
        outputs = packed_shape(plan.features)
        out_shape = [outputs, *[jax.ShapeDtypeStruct(outputs.shape[1:], dtype)] * 2]
        out_specs = [walk.packed(plan.features, plan.gates_lag)]
    out_specs += [walk.state(plan.features, plan.gates_lag, plan.steps - 1, writes)] * 2
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
    outputs, h, c, *saved = call(
        partial(_kernel, walk=walk, reads=reads, writes=writes, starts=state is not None, saves=saves),
        grid=(packing.groups, walk.steps + plan.gates_lag),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
        name="conv_lstm",
    )(*operands)
    return outputs, (h, c), saved


def _kernel(*refs, walk: Walk, reads: bool, writes: bool, starts: bool, saves: bool):
    refs = list(refs)
    x_ref, weights_ref, bias_ref = refs[:3]
    del refs[:3]
    if starts:
        first_h_ref, first_c_ref = refs[:2]
        del refs[:2]
    out_ref, last_h_ref, last_c_ref = refs[:3]
    del refs[:3]
    if saves:
        gates_ref, cells_ref, both_ref = refs[:3]
        del refs[:3]
    both, cells, products = refs[:3]  # hidden state beside input, for even and odd frames; c; products of two steps
    plan = walk.plan
    packing, columns, dtype = plan.packing, plan.packing.columns, plan.dtype
    top, left = plan.before
    right = plan.after[1]
    blocks, area, gate = plan.blocks, plan.area, plan.gate
    row_area = area // plan.rows
    step = pl.program_id(1)

    def put(parity, row, value, lanes):
        """`[rows, columns, sublanes, n]` into the frame, and its outer columns beside the parts that they border on."""
        here = pl.ds(top + row, value.shape[0])
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
            put(0, step * plan.rows, first_h_ref[...], slice(0, gate))

        @pl.when((step >= plan.gates_lag) & (step < plan.gates_lag + blocks))
        def _():
            cells[step - plan.gates_lag] = first_c_ref[...].reshape(area, gate)

    else:

        @pl.when(step == plan.gates_lag)
        def _():
            def clear(block, _):
                cells[block] = jnp.zeros((area, gate), jnp.float32)

            jax.lax.fori_loop(0, blocks, clear, None)

    def gates_of_part(frame, block, rows):
        part = slice(rows.start * row_area, rows.stop * row_area)
        gates = jnp.tanh(products[(step + 1) & 1, part] + bias_ref[...])
        forget_input = 0.5 * gates[:, : 2 * gate] + 0.5
        output = 0.5 * gates[:, 2 * gate : 3 * gate] + 0.5
        if gate < LANES:
            added = (forget_input * gates[:, 2 * gate :])[:, gate:]  # a rotation of the product instead of both factors
        else:
            added = forget_input[:, gate:] * gates[:, 3 * gate :]
        c = forget_input[:, :gate] * cells[block, part] + added
        cells[block, part] = c
        h = output * jnp.tanh(c)
        shape = (len(rows), columns, packing.sublanes)
        here = slice(rows.start, rows.stop)
        if saves:
            gates_ref[here, ..., : 2 * gate] = forget_input.astype(dtype).reshape(*shape, 2 * gate)
            output_cell = jnp.concatenate([output, gates[:, 3 * gate :]], 1)
            gates_ref[here, ..., 2 * gate :] = output_cell.astype(dtype).reshape(*shape, 2 * gate)
            cells_ref[here] = c.astype(dtype).reshape(*shape, gate)
        h = h.astype(dtype).reshape(*shape, gate)
        if writes:
            write_usual(h[..., : plan.features], refs[-1], plan, rows)
        else:
            out_ref[here] = h[..., : plan.features]
        return h

    def products_of_part(frame, block, rows):
        taps = [
            both[frame & 1, pl.ds(block * plan.rows + rows.start + i, len(rows)), j : j + columns].reshape(
                -1, plan.lanes
            )
            for i in range(plan.window[0])
            for j in range(plan.window[1])
        ]
        products[step & 1, rows.start * row_area : rows.stop * row_area] = jnp.dot(
            jnp.concatenate(taps, 1), weights_ref[...], preferred_element_type=jnp.float32, precision=plan.precision
        )
        if saves:
            here = pl.ds(top + block * plan.rows + rows.start, len(rows))
            both_ref[rows.start : rows.stop] = both[frame & 1, here, left : left + columns]

    def input_of_part(frame, block, rows):
        value = read_usual(refs[3], plan, rows) if reads else x_ref[rows.start : rows.stop]
        put(frame & 1, block * plan.rows + rows.start, value, slice(gate, gate + plan.channels))

    def hidden(frame, block, rows, h):
        put((frame + 1) & 1, block * plan.rows + rows.start, h, slice(0, gate))

    # In this order the compiler sees that they do not wait for each other: it cannot tell one half of `both` from the
    # other, so all reads of it come first.
    gates_at, products_at, input_at = (walk.at(step, lag) for lag in (plan.gates_lag, plan.products_lag, 0))
    if reads:
        to_words(x_ref[...], refs[3])
    for rows in plan.parts:
        if walk.frame_blocks == blocks:
            h = gates_of_part(*gates_at, rows)
            products_of_part(*products_at, rows)
            input_of_part(*input_at, rows)
            hidden(*gates_at, rows, h)
        else:
            # A frame of few blocks: some steps go by until what the next frame needs is there.
            @pl.when(gates_at[1] < blocks)
            def _(rows=rows):
                hidden(*gates_at, rows, gates_of_part(*gates_at, rows))

            pl.when(products_at[1] < blocks)(partial(products_of_part, *products_at, rows))
            pl.when(input_at[1] < blocks)(partial(input_of_part, *input_at, rows))

    made = gates_at[1] < blocks  # not so in a short frame's idle steps, where the words may hold the last c already
    if writes and walk.frame_blocks == blocks:
        out_ref[...] = from_words(refs[-1], plan)
    elif writes:

        @pl.when(made)
        def _():
            out_ref[...] = from_words(refs[-1], plan)

    @pl.when((step - plan.gates_lag >= (plan.steps - 1) * walk.frame_blocks) & made)
    def _():
        c = cells[gates_at[1]].reshape(plan.rows, columns, packing.sublanes, gate)[..., : plan.features].astype(dtype)
        last_h_ref[...] = out_ref[...]
        if writes:
            write_usual(c, refs[-1], plan, range(plan.rows))
        last_c_ref[...] = from_words(refs[-1], plan) if writes else c
