"""The gradients of depthwise convolution on a TPU: what each call takes."""

from collections.abc import Sequence

import jax

from ..dispatch import Refused
from . import tpu_spatial, tpu_temporal


def depthwise_conv_input_gradient(
    g: jax.Array,
    kernel: jax.Array,
    *,
    spatial: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rows: int | None = None,
) -> jax.Array:
    """g `[N, *spatial', C]`, kernel `[*window, 1, C]` to the cotangent of x `[N, *spatial, C]`.

    Raises:
      Refused: no kernel here serves the call.
    """
    window = kernel.shape[:-2]
    if tpu_temporal.is_temporal(window, strides, padding):
        video = tpu_temporal.as_video(g)
        dx = tpu_temporal.input_gradient(
            video, kernel, frames=spatial[0], stride=strides[0], padding=padding[0], rows=rows
        )
        return dx.reshape(g.shape[0], *spatial, g.shape[-1])
    around = tuple(
        (k - 1 - low, size - out + low)
        for k, (low, _), size, out in zip(window, padding, spatial, g.shape[1:-1], strict=True)
    )
    if tpu_spatial.is_spatial(window, strides) and min(map(min, around)) >= 0:
        # The transpose of a correlation is one with the window turned around, as long as its padding is no cropping.
        return tpu_spatial.correlate(g, kernel[::-1, ::-1], padding=around, name="depthwise_spatial_input_gradient")
    raise Refused(f"depthwise gradients serve windows in time, and images with stride 1, not {window} by {strides}")


def depthwise_conv_weight_gradient(
    x: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    rows: int | None = None,
) -> jax.Array:
    """x `[N, *spatial, C]`, g `[N, *spatial', C]` to the cotangent of the kernel `[*window, 1, C]`, float32.

    Raises:
      Refused: no kernel here serves the call.
    """
    if tpu_temporal.is_temporal(window, strides, padding):
        dkernel = tpu_temporal.weight_gradient(
            *map(tpu_temporal.as_video, (x, g)), taps=window[0], stride=strides[0], padding=padding[0], rows=rows
        )
        return dkernel.reshape(*window, 1, x.shape[-1])
    raise Refused(f"depthwise weight gradients serve windows in time alone, got window {window} strides {strides}")
