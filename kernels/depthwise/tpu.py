"""Depthwise convolution on a TPU: what each call takes."""

from collections.abc import Sequence

import jax

from ..dispatch import Refused
from . import tpu_spatial, tpu_temporal


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rows: int | None = None,
) -> jax.Array:
    """x `[N, *spatial, C]`, kernel `[*window, 1, C]` to `[N, *spatial', C]`; `rows` of a frame are a block
    of a convolution over time; one over images has whole images.

    Raises:
      Refused: no kernel here serves the call.
    """
    window = kernel.shape[:-2]
    if tpu_temporal.is_temporal(window, strides, padding):
        video = tpu_temporal.as_video(x)
        out = tpu_temporal.forward(video, kernel, stride=strides[0], padding=padding[0], rows=rows)
        return out.reshape(x.shape[0], out.shape[1], *x.shape[2:])
    if tpu_spatial.is_spatial(window, strides):
        return tpu_spatial.correlate(x, kernel, padding=padding, name="depthwise_spatial")
    raise Refused(f"depthwise kernels serve windows in time, and images with stride 1, not {window} by {strides}")
