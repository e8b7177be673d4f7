"""Max and average pooling over one, two or three axes."""

from collections.abc import Sequence

import jax

from .. import dispatch, reference
from ..arguments import Padding, check_floating, check_input, over_folded_batch, pairs, per_axis
from . import vjp


def max_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """Largest value in each window of x `[*batch, *spatial, C]`; padding never wins. Strides default to the window.

    Where values are equal the gradient goes to the first of them, in row-major order, as XLA has it.

    Raises:
      ValueError: shapes that do not fit, or no implementation asked for serves the call.
    """
    return _pool("max_pool", x, window, strides, padding, implementation)


def avg_pool(
    x: jax.Array,
    *,
    window: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """Mean over each window of x `[*batch, *spatial, C]`, padding not counted. Strides default to the window.

    Sums are float32 for narrower dtypes.

    Raises:
      ValueError: shapes that do not fit, x not floating, or no implementation asked for serves the call.
    """
    check_floating("avg_pool", x=x)
    return _pool("avg_pool", x, window, strides, padding, implementation)


def _pool(operation, x, window, strides, padding, implementation):
    axes = len(tuple(window))
    check_input(x, axes, operation)
    window = per_axis(window, axes, "window")
    strides = window if strides is None else per_axis(strides, axes, "strides")
    padding = pairs(padding, x.shape[-axes - 1 : -1], window, strides, (1,) * axes)
    if any(low >= size or high >= size for (low, high), size in zip(padding, window, strict=True)):
        raise ValueError(f"padding {padding} is as large as the window {window}: some windows would hold nothing")
    options = {"window": window, "strides": strides, "padding": padding}

    def fold(x):
        call = dispatch.call(operation, [x], options, implementation)
        if dispatch.is_plain((operation, f"{operation}_gradient"), call):
            return getattr(reference, operation)(x, **options)
        return getattr(vjp, operation)(x, call)

    return over_folded_batch(fold, x, axes)
