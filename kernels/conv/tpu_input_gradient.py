"""The input gradient of a convolution on TPUs: a convolution of the cotangent, for all phases of the stride at once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..dispatch import Refused
from .tpu import conv_and_more
from .tpu_geometry import Pairs


def conv_input_gradient(
    g: jax.Array,
    kernel: jax.Array,
    *,
    spatial: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    inside: int | None = None,
    frames: int | None = None,
    rows: int | None = None,
    columns: int | None = None,
    features: int | None = None,
    fold: int | None = None,
    lines: int | None = None,
) -> jax.Array:
    """What a cotangent g `[N, *spatial', F]` of the convolution means for x `[N, *spatial, C]`, in g's dtype.

    With stride 1 that is the convolution of g with the kernel turned round. With stride 2 the pixels of x at even and
    odd places see different taps of the kernel; both sums are features of one convolution of g, and are written side by
    side. Its kernel has zeros where a tap is not seen, so an infinity or NaN in g makes NaN of all in its product.

    Blocks as in `tpu.conv_and_more`, counted in pixels of g.

    Raises:
      Refused: groups, nothing to compute, or not even one row fits into VMEM.
    """
    if groups != 1:
        raise Refused(f"the dense kernel has no groups, got groups={groups}")
    window = kernel.shape[:-2]
    axes = len(window)
    around, taps = [], []
    crop = [slice(None)] * g.ndim
    for axis in range(axes):
        stride, rate, (low, _) = strides[axis], dilation[axis], padding[axis]
        # Pixel m * stride + p of x was seen by output m + seen[p, i] through tap i, if that is whole.
        seen = [[divmod(p + low - i * rate, stride) for i in range(window[axis])] for p in range(stride)]
        whole = [offset for phase in seen for offset, rest in phase if not rest] or [0]
        first, count = min(whole), max(whole) - min(whole) + 1
        tap = np.full((count, stride), window[axis])
        for p, phase in enumerate(seen):
            for i, (offset, rest) in enumerate(phase):
                if not rest:
                    tap[offset - first, p] = i
        size = g.shape[1 + axis]
        wanted = -(-spatial[axis] // stride)
        begin, end = -first, wanted - size + first + count - 1
        crop[1 + axis] = slice(max(-begin, 0), size - max(-end, 0))
        around.append((max(begin, 0), max(end, 0)))
        taps.append(tap)
    if max(*strides, *dilation) == 1:
        kernel = jnp.flip(kernel.astype(g.dtype), range(axes)).swapaxes(-1, -2)
    else:
        kernel = _by_phases(kernel.astype(g.dtype), taps)
    return conv_and_more(
        g[tuple(crop)],
        kernel,
        strides=(1,) * axes,
        padding=tuple(around),
        dilation=(1,) * axes,
        inside=inside,
        frames=frames,
        rows=rows,
        columns=columns,
        features=features,
        fold=fold,
        lines=lines,
        spread=tuple(strides),
        size=tuple(spatial),
    )


def _by_phases(kernel: jax.Array, taps: Sequence[np.ndarray]) -> jax.Array:
    """A kernel `[*window, C, F]` as one of `[*seen, F, phases * C]`.

    Args:
      taps: for each axis `[seen, phases]`: the kernel's tap, or its number of taps where none is seen.
    """
    axes = len(taps)
    # One tap of zeros more in each axis stands for those that are not seen.
    kernel = jnp.pad(kernel, ((0, 1),) * axes + ((0, 0), (0, 0)))
    for axis, tap in enumerate(taps):
        kernel = jnp.take(kernel, jnp.asarray(tap), axis=2 * axis)
    # From [seen, phase, ..., C, F] to [*seen, F, *phases, C].
    kernel = kernel.transpose(*range(0, 2 * axes, 2), 2 * axes + 1, *range(1, 2 * axes, 2), 2 * axes)
    return kernel.reshape(*kernel.shape[: axes + 1], -1)
