"""How the TPU's pooling kernels see an array: `[N, A, B, S, C]`, channels in lanes and one axis in sublanes.

A vector register holds 8 sublanes of 128 lanes. Neighbours along A and B are other registers, and cost nothing to
reach; neighbours along S lie in the same register. In two dimensions A is height and S is width, as the array lies in
memory. In three, S is time: it is short, it fills a register where width seldom does, and XLA's own choice for such
arrays is to put time there, so that the transposition is none.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..arguments import Pairs
from ..dispatch import Refused

LANES = 128
# What the compiler gives a kernel that asks for nothing, and what it may ask for of the 128 MiB of v5e and v6e.
_USUAL_VMEM, _MOST_VMEM = 16 << 20, 96 << 20
# A kernel's rows are unrolled in registers; more than this many a row, and the program gets too long.
_MOST_REGISTERS = 1024


class Slide(NamedTuple):
    """A window sliding along an axis of `size`, padded in front by `low`: `out` places, `stride` apart."""

    size: int
    window: int
    stride: int
    low: int
    out: int

    @property
    def still(self) -> bool:
        return self.window == 1 and self.stride == 1 and self.out == self.size

    @property
    def padded(self) -> int:
        """How long the axis is with all the padding that windows reach."""
        return max(self.low + self.size, (self.out - 1) * self.stride + self.window)

    def source(self, place, tap: int):
        """Which element is number `tap` of the window at `place`. For padding it names the axis's nearest end.

        That element is in the window as well, so it changes no maximum.
        """
        index = place * self.stride + tap - self.low
        if isinstance(index, int):
            return min(max(index, 0), self.size - 1)
        if self.low == 0 and (self.out - 1) * self.stride + tap < self.size:
            return index
        return jnp.clip(index, 0, self.size - 1)


class View(NamedTuple):
    """The axes as the kernel has them, and the ways there and back."""

    a: Slide
    b: Slide
    s: Slide
    into: Callable[[jax.Array], jax.Array]
    out_of: Callable[[jax.Array], jax.Array]
    sublanes_are_time: bool


def view(spatial: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Pairs) -> View:
    """How to see arrays `[N, *spatial, C]`, and what pooling makes of them."""
    slides = [
        Slide(n, k, s, low, (n + low + high - k) // s + 1)
        for n, k, s, (low, high) in zip(spatial, window, strides, padding, strict=True)
    ]
    one = Slide(1, 1, 1, 0, 1)
    if len(slides) == 3 and not slides[0].still:
        time, height, width = slides
        there, back = (0, 2, 3, 1, 4), (0, 3, 1, 2, 4)
        return View(height, width, time, lambda x: x.transpose(there), lambda x: x.transpose(back), True)
    # Frames that no window joins are as good as images of their own.
    frames = slides[0].size if len(slides) == 3 else 1
    height = slides[-2] if len(slides) > 1 else one

    def into(x: jax.Array) -> jax.Array:
        rows = x.shape[-3] if len(slides) > 1 else 1
        return x.reshape(x.shape[0] * frames, rows, 1, *x.shape[-2:])

    def out_of(x: jax.Array) -> jax.Array:
        rows = (x.shape[1],) if len(slides) > 1 else ()
        middle = (frames,) if len(slides) == 3 else ()
        return x.reshape(x.shape[0] // frames, *middle, *rows, *x.shape[-2:])

    return View(height, one, slides[-1], into, out_of, False)


def check_registers(view: View, what: str) -> None:
    """
    Raises:
      Refused: a row is too long to be unrolled.
    """
    registers = view.b.size * pl.cdiv(view.s.size, 8)
    if registers > _MOST_REGISTERS:
        raise Refused(f"{what} unrolls rows of at most {_MOST_REGISTERS} registers, got {registers}")


def tiled_bytes(shape: Sequence[int], itemsize: int) -> int:
    """What an array takes in VMEM, where its last two axes come in tiles of 8 sublanes by 128 lanes."""
    *outer, sublanes, lanes = shape
    return math.prod(outer) * pl.cdiv(sublanes, 8) * 8 * pl.cdiv(lanes, LANES) * LANES * itemsize


def vmem_limit(what: str, held: int) -> int:
    """The limit to ask for by a kernel whose blocks and scratch take `held` bytes.

    It is no higher than need be: XLA keeps whole activations in the VMEM that a kernel leaves.

    Raises:
      Refused: that is more than there is.
    """
    # A quarter more, and 2 MiB, for values that registers cannot hold.
    limit = held * 5 // 4 + (2 << 20)
    if limit > _MOST_VMEM:
        raise Refused(f"{what} keeps an image in {_MOST_VMEM} bytes of VMEM, got one that needs {limit}")
    return max(limit, _USUAL_VMEM)


def lane_groups(channels: int) -> list[slice]:
    """A block's channels by 128: more than that at once, and rows do not stay in registers."""
    return [slice(lane, min(lane + LANES, channels)) for lane in range(0, channels, LANES)]


def channels_a_step(channels: int, bytes_for: Callable[[int], int], wanted: int, whole_lanes: bool) -> int:
    """How many channels a grid step takes: as many as `wanted` bytes hold, all blocks full where that can be.

    A kernel with scratch wants `whole_lanes`: scratch has 128, and Mosaic cannot store to a part of them.
    """
    if whole_lanes and channels > LANES and channels % LANES:
        return LANES
    whole = pl.cdiv(channels, LANES)
    fitting = [m for m in range(1, whole + 1) if m == 1 or bytes_for(m * LANES) <= wanted]
    groups = min(fitting, key=lambda m: (pl.cdiv(whole, m) * m, -m))
    return channels if groups == whole else groups * LANES


def taps(v: jax.Array, slot, slide: Slide) -> list[jax.Array]:
    """For each element of the window along sublanes, that element of every window: v `[B, S, C]` to `[B, out, C]`.

    `slot` is scratch `[B, padded, C]` of v's dtype, needed where the stride is above 1: sublanes can be read with a
    stride from memory, not from registers.
    """
    if slide.still:
        return [v]
    if slide.stride == 1:
        return [_shifted(v, j - slide.low, slide.out) for j in range(slide.window)]
    fill(v, slot, slide)
    return read_taps(slot, slide)


def fill(v: jax.Array, slot, slide: Slide) -> None:
    """v `[B, S, C]` into `[B, padded, C]`, its ends repeated as padding."""
    after = slide.padded - slide.low - slide.size
    slot[:, slide.low : slide.low + slide.size] = v
    if slide.low:
        slot[:, : slide.low] = jnp.broadcast_to(v[:, :1], (v.shape[0], slide.low, v.shape[2]))
    if after:
        slot[:, slide.padded - after :] = jnp.broadcast_to(v[:, -1:], (v.shape[0], after, v.shape[2]))


def read_taps(slot, slide: Slide) -> list[jax.Array]:
    """What `fill` has left, as `taps` gives it."""
    return [slot[:, pl.ds(j, slide.out, slide.stride)] for j in range(slide.window)]


def place_back(parts: Sequence[jax.Array], slot, slide: Slide) -> jax.Array:
    """Sums what the windows give to their elements: parts as `taps` has them, to `[B, S, C]`; padding is dropped.

    `slot` is scratch as for `taps`.
    """
    if slide.still:
        return parts[0]
    if slide.stride == 1:
        return functools.reduce(operator.add, [_put(part, j - slide.low, slide) for j, part in enumerate(parts)])
    # The first `stride` elements of all windows, where there are so many, cover all but the end.
    covered = slide.out * slide.stride if slide.window >= slide.stride else 0
    if covered < slide.padded:
        slot[:, covered:] = jnp.zeros((slot.shape[0], slide.padded - covered, slot.shape[2]), slot.dtype)
    for j, part in enumerate(parts):
        here = (slice(None), pl.ds(j, slide.out, slide.stride))
        # Element `stride` of a window is element 0 of the next: there, and there only, something may lie already.
        slot[here] = part if j < slide.stride else slot[here] + part
    return slot[:, slide.low : slide.low + slide.size]


def _put(part: jax.Array, by: int, slide: Slide) -> jax.Array:
    """part `[B, out, C]` moved by `by` along an axis of `size` zeros."""
    inside = part[:, max(-by, 0) : min(slide.size - by, slide.out)]
    if not inside.shape[1]:
        return jnp.zeros((part.shape[0], slide.size, part.shape[2]), part.dtype)
    before, after = max(by, 0), slide.size - max(by, 0) - inside.shape[1]
    zeros = [jnp.zeros((part.shape[0], rows, part.shape[2]), part.dtype) for rows in (before, after)]
    pieces = [piece for piece in (zeros[0], inside, zeros[1]) if piece.shape[1]]
    return jnp.concatenate(pieces, 1) if len(pieces) > 1 else inside


def _shifted(v: jax.Array, by: int, out: int) -> jax.Array:
    """`v[:, by : by + out]`, with the ends repeated where that reaches beyond them."""
    size = v.shape[1]
    inside = v[:, max(by, 0) : min(by + out, size)]
    before = [v[:, :1]] * min(max(-by, 0), out)
    after = [v[:, -1:]] * min(max(by + out - size, 0), out)
    parts = [*before, *([inside] if inside.shape[1] else []), *after]
    return jnp.concatenate(parts, 1) if len(parts) > 1 else parts[0]


def largest(values: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.maximum, values)


def largest_of_registers(v: jax.Array, slide: Slide) -> jax.Array:
    """Maxima of v `[B, S, C]` along B."""
    if slide.still:
        return v
    columns = [v[b] for b in range(slide.size)]
    return jnp.stack([largest([columns[slide.source(b, j)] for j in range(slide.window)]) for b in range(slide.out)])
