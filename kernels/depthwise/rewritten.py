"""Depthwise convolution as shifted multiply-adds in plain JAX, for any platform.

A filter a channel has nothing for a matrix unit to do. Written as a sum of shifted products, the compiler fuses it
into one pass over the input, in whatever layout its neighbours have.

On a CPU that one pass computes the padding anew for every tap. There forms that keep it are faster: see `FORMS`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..dispatch import Refused
from ..images import image_by_image
from . import rewritten_phases, rewritten_rows
from .shifts import Pairs, check, shifted, taps
from .shifts import padded as pad

# What the tuner tries for each operation.
#   None: fused into one pass. Timed alone on a CPU it is no slower than "padded"; in a prototype it was 5 times slower,
#     presumably where XLA fused what came before with the padding. A tuner would not see that, so it is not tried.
#   padded: the padded input is computed once, and the taps read it.
#   images: so, an image at a time.
#   phases: the input gradient of strides, without the zeros between (rewritten_phases.py).
#   rows: sums of weight gradients by rows (rewritten_rows.py).
FORMS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "depthwise_conv": ({"form": "padded"}, {"form": "images"}),
    "depthwise_conv_input_gradient": ({"form": "padded"}, {"form": "images"}, {"form": "phases"}),
    "depthwise_conv_weight_gradient": ({"form": "rows"},),
}


def _check_form(form: str | None, operation: str) -> None:
    forms = [None, *(candidate["form"] for candidate in FORMS[operation])]
    if form not in forms:
        raise Refused(f"{operation} has the forms {forms}, not {form!r}")


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Pairs, form: str | None = None
) -> jax.Array:
    """x `[N, *spatial, C]`, kernel `[*window, 1, C]` to `[N, *spatial', C]` in x's dtype, summed in float32 or wider.

    Raises:
      Refused: a window of more than 125 taps, or no such form.
    """
    window = kernel.shape[:-2]
    check(window)
    _check_form(form, "depthwise_conv")
    if form == "images":
        one = partial(depthwise_conv, kernel=kernel, strides=strides, padding=padding, form="padded")
        return image_by_image(one, x)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = pad(x, padding)
    if form == "padded":
        padded = lax.optimization_barrier(padded)
    sizes = [(size - k) // s + 1 for size, k, s in zip(padded.shape[1:-1], window, strides, strict=True)]
    terms = (
        shifted(padded, tap, sizes, strides).astype(wide) * kernel[tap].astype(wide).reshape(-1) for tap in taps(window)
    )
    return sum(terms, start=jnp.zeros((), wide)).astype(x.dtype)


def depthwise_conv_input_gradient(
    g: jax.Array,
    kernel: jax.Array,
    *,
    spatial: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    form: str | None = None,
) -> jax.Array:
    """g `[N, *spatial', C]`, kernel `[*window, 1, C]` to the cotangent of x `[N, *spatial, C]` in g's dtype.

    Raises:
      Refused: a window of more than 125 taps, or no such form.
    """
    window = kernel.shape[:-2]
    check(window)
    _check_form(form, "depthwise_conv_input_gradient")
    options = {"kernel": kernel, "spatial": spatial, "strides": strides, "padding": padding}
    if form == "phases":
        if max(strides) == 1:
            raise Refused(f"strides {tuple(strides)} have one phase: form 'padded' is the same")
        return image_by_image(partial(rewritten_phases.input_gradient, **options), g)
    if form == "images":
        return image_by_image(partial(depthwise_conv_input_gradient, form="padded", **options), g)
    wide = jnp.promote_types(g.dtype, jnp.float32)
    around = []
    for size, k, s, (low, _), out in zip(spatial, window, strides, padding, g.shape[1:-1], strict=True):
        before = k - 1 - low
        around.append((before, size + k - 1 - before - ((out - 1) * s + 1)))
    padded = pad(g, around, [s - 1 for s in strides])
    if form == "padded":
        padded = lax.optimization_barrier(padded)
    ones = (1,) * len(window)
    terms = (
        shifted(padded, [k - 1 - i for k, i in zip(window, tap, strict=True)], spatial, ones).astype(wide)
        * kernel[tap].astype(wide).reshape(-1)
        for tap in taps(window)
    )
    return sum(terms, start=jnp.zeros((), wide)).astype(g.dtype)


def depthwise_conv_weight_gradient(
    x: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    form: str | None = None,
) -> jax.Array:
    """x `[N, *spatial, C]`, g `[N, *spatial', C]` to the cotangent of the kernel `[*window, 1, C]`, float32 or wider.

    Raises:
      Refused: a window of more than 125 taps, or no such form.
    """
    check(window)
    _check_form(form, "depthwise_conv_weight_gradient")
    if form == "rows":
        options = {"window": window, "strides": strides, "padding": padding}
        # The loop's own derivative would write all of x once a row.
        by_rows = jax.custom_jvp(partial(rewritten_rows.weight_gradient, **options))
        plain = partial(depthwise_conv_weight_gradient, **options)
        by_rows.defjvp(lambda primals, tangents: (by_rows(*primals), jax.jvp(plain, primals, tangents)[1]))
        return by_rows(x, g)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = pad(x, padding)
    over = tuple(range(x.ndim - 1))
    terms = [
        (shifted(padded, tap, g.shape[1:-1], strides).astype(wide) * g.astype(wide)).sum(over) for tap in taps(window)
    ]
    return jnp.stack(terms).reshape(*window, 1, x.shape[-1])
