"""The sizes of one ConvLSTM layer within a TPU, how its weights lie there, and whether it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ..dispatch import Refused
from .layout import GATES, LANES, Packing, lane_features, packings, round_up

# v5e, v5p and v6e have 128 MiB of VMEM to a core; the compiler wants some of it for its own.
VMEM_LIMIT = 120 << 20

# Rows of a block's matrix products: enough to hide the loading of weights, and few enough for the compiler to schedule
# in seconds. 2048 is 1% faster on v6e.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Plan:
    """One layer's sizes: what is computed in a step of the grid, and what that needs of VMEM.

    rows: image rows of one matrix product. The grid walks over blocks of so many rows, frame after frame.
    """

    packing: Packing
    steps: int
    height: int
    channels: int
    features: int
    window: tuple[int, int]
    rows: int
    dtype: jnp.dtype

    @property
    def taps(self) -> int:
        return self.window[0] * self.window[1]

    @property
    def before(self) -> tuple[int, int]:
        """Zeros that SAME puts before the first row and column."""
        return (self.window[0] - 1) // 2, (self.window[1] - 1) // 2

    @property
    def after(self) -> tuple[int, int]:
        return self.window[0] // 2, self.window[1] // 2

    @property
    def reach(self) -> int:
        """Blocks above and below that a block's window reaches into."""
        return -(-self.after[0] // self.rows)

    @property
    def blocks(self) -> int:
        """Blocks of rows in a frame."""
        return self.height // self.rows

    @property
    def products_lag(self) -> int:
        """Steps after which a block's input, and that of the blocks its window reaches into, is in place."""
        return 1 + self.reach

    @property
    def gates_lag(self) -> int:
        return self.products_lag + 1

    @property
    def parts(self) -> list[range]:
        """The rows of a block that are worked on together.

        The compiler keeps stores behind the loads that come before them. With two parts, those of the first part go
        on during the products of the second one, which is worth 12% on v5e.
        """
        half = self.rows // 2
        return [range(self.rows)] if self.rows % 2 else [range(half), range(half, self.rows)]

    @property
    def gate(self) -> int:
        return lane_features(self.features)

    @property
    def lanes(self) -> int:
        """Lanes of hidden state and input side by side."""
        return round_up(self.gate + self.channels, LANES)

    @property
    def area(self) -> int:
        """Rows of one block's matrix product."""
        return self.rows * self.packing.columns * self.packing.sublanes

    @property
    def halo_shape(self) -> tuple[int, int, int]:
        return (
            self.height + self.window[0] - 1,
            self.packing.columns + self.window[1] - 1,
            self.packing.sublanes,
        )

    @property
    def precision(self) -> jax.lax.Precision:
        """Float32 in full; bfloat16 needs no more than one pass."""
        return jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else jax.lax.Precision.DEFAULT

    def bytes(self, positions: int, lanes: int, dtype: jax.typing.DTypeLike) -> int:
        return positions * round_up(lanes, LANES) * jnp.dtype(dtype).itemsize

    @property
    def halo_positions(self) -> int:
        height, columns, sublanes = self.halo_shape
        return height * columns * sublanes

    @property
    def positions(self) -> int:
        """Positions of a frame."""
        return self.blocks * self.area

    def arrange_kernel(self, kernel: jax.Array) -> jax.Array:
        """`[kh, kw, C + F, 4F]` to `[taps, lanes, 4 gate]`: rows hidden state then input, gates f, i, o, g.

        The sigmoid gates' weights are halved, since sigmoid(v) = tanh(v / 2) / 2 + 1 / 2 and one tanh then serves all.
        """
        h, w = self.window
        kernel = kernel.reshape(h * w, self.channels + self.features, 4, self.features)
        padded = [(0, 0), (0, 0), (0, 0), (0, self.gate - self.features)]
        x, hidden = (jnp.pad(part, padded) for part in (kernel[:, : self.channels], kernel[:, self.channels :]))
        hidden = jnp.pad(hidden, [(0, 0), (0, self.gate - self.features), (0, 0), (0, 0)])
        x = jnp.pad(x, [(0, 0), (0, self.lanes - self.gate - self.channels), (0, 0), (0, 0)])
        return jnp.concatenate([hidden, x], axis=1)[:, :, GATES].reshape(h * w, self.lanes, 4 * self.gate)

    def arrange_bias(self, bias: jax.Array) -> jax.Array:
        """`[4F]` to float32 `[1, 4 gate]`."""
        bias = jnp.pad(bias.astype(jnp.float32).reshape(4, -1), [(0, 0), (0, self.gate - self.features)])
        return bias[GATES, :].reshape(1, 4 * self.gate)

    def halve_sigmoids(self, values: jax.Array) -> jax.Array:
        """Values of arranged gates, those of f, i and o halved: exact in any binary floating point."""
        return values * jnp.repeat(jnp.array([0.5, 0.5, 0.5, 1.0], values.dtype), self.gate)

    def restore_kernel(self, arranged: jax.Array) -> jax.Array:
        """The inverse of `arrange_kernel`."""
        h, w = self.window
        arranged = arranged.reshape(h, w, self.lanes, 4, self.gate)[..., GATES, : self.features]
        hidden, x = arranged[:, :, : self.features], arranged[:, :, self.gate : self.gate + self.channels]
        return jnp.concatenate([x, hidden], axis=2).reshape(h, w, self.channels + self.features, 4 * self.features)

    def restore_bias(self, arranged: jax.Array) -> jax.Array:
        """The inverse of `arrange_bias`."""
        return arranged.reshape(4, self.gate)[GATES, : self.features].reshape(-1)


def make_plans(
    x: jax.Array, kernels: Sequence[jax.Array], rows: int | None, peephole: object = None, *, saves: bool
) -> list[Plan]:
    """Sizes of layers, one upon the other, for x `[B, T, H, W, C]`: in the first packing in which all fit VMEM.

    saves: the forward pass saves what the backward pass needs, and that has to fit too.

    Raises:
      Refused: peepholes, dtypes other than float32 and bfloat16, and states that do not fit VMEM.
    """
    if peephole is not None:
        raise Refused("conv_lstm has no peepholes in a kernel: three more arrays of a frame's size would fill VMEM")
    dtypes = {array.dtype for array in (x, *kernels)}
    if len(dtypes) > 1 or x.dtype not in (jnp.float32, jnp.bfloat16):
        raise Refused(f"conv_lstm needs x and kernel both float32 or both bfloat16, got {sorted(map(str, dtypes))}")
    if 0 in x.shape or (rows is not None and x.shape[2] % rows):
        raise Refused(f"conv_lstm needs rows that divide the height and no empty axis, got x {x.shape}, rows={rows}")
    smallest = 0
    for packing in packings(x.shape[0], x.shape[3], max(kernel.shape[1] for kernel in kernels), x.dtype):
        plans = [plan_with(packing, x.shape, kernel, rows) for kernel in kernels]
        needed = max(max(forward_bytes(plan, saves), backward_bytes(plan) if saves else 0) for plan in plans)
        if needed <= VMEM_LIMIT:
            return plans
        smallest = min(smallest or needed, needed)
    raise Refused(f"conv_lstm has {VMEM_LIMIT >> 20} MiB of VMEM for its state, x {x.shape} needs {smallest >> 20}")


def plan_with(packing: Packing, shape: tuple[int, ...], kernel: jax.Array, rows: int | None) -> Plan:
    """The plan for `[B, T, H, W, channels]` in a given packing; `default_rows` if None are given."""
    _, steps, height, _, _ = shape
    if rows is None:
        rows = default_rows(height, packing.columns * packing.sublanes)
    features = kernel.shape[-1] // 4
    window = (kernel.shape[0], kernel.shape[1])
    return Plan(packing, steps, height, kernel.shape[2] - features, features, window, rows, kernel.dtype)


def default_rows(height: int, in_row: int) -> int:
    """Image rows of a block: an even number if possible, for two parts, and at least four blocks for the pipeline."""
    fitting = [r for r in range(1, height // 4 + 1) if height % r == 0 and (r <= 2 or r * in_row <= BLOCK_ROWS)]
    return max(fitting, key=lambda r: (r % 2 == 0, r), default=1)


def forward_bytes(plan: Plan, saves: bool) -> int:
    """What the forward kernel holds in VMEM, everything that goes in or out twice, and the values of one step."""
    gates = 4 * plan.gate
    state = 2 * plan.bytes(plan.halo_positions, plan.lanes, plan.dtype)
    state += plan.bytes(plan.positions, plan.gate, jnp.float32)
    weights = 2 * plan.bytes(plan.taps * plan.lanes, gates, plan.dtype)
    block = plan.bytes(plan.area, plan.lanes, plan.dtype) + 3 * plan.bytes(plan.area, plan.gate, jnp.float32)
    if saves:
        block += plan.bytes(plan.area, gates + plan.gate + plan.lanes, plan.dtype)
    # Products twice, and beside them the operand that joins all taps, sums and gates in flight.
    values = 6 * plan.bytes(plan.area, gates, jnp.float32) + plan.bytes(plan.area, plan.taps * plan.lanes, plan.dtype)
    return state + weights + 3 * block + values


def backward_bytes(plan: Plan) -> int:
    """The same for the backward kernel."""
    gates = 4 * plan.gate
    state = plan.bytes(plan.halo_positions + 2 * plan.area, gates, plan.dtype)
    state += plan.bytes(plan.positions + plan.area, 2 * plan.gate, jnp.float32)
    weights = plan.taps * plan.lanes * gates * (2 * plan.dtype.itemsize + 3 * 4)
    block = plan.bytes(plan.area, gates + 2 * plan.lanes + 3 * plan.gate, plan.dtype)
    block += 2 * plan.bytes(plan.area, 2 * plan.gate, jnp.float32)
    values = 6 * plan.bytes(plan.area, gates, jnp.float32) + plan.bytes(plan.area, plan.taps * gates, plan.dtype)
    return state + weights + 3 * block + values
