"""Convolution in other forms, in plain JAX: which there are, and which is taken.

  rows: neighbouring pixels of a row become channels, for matrix units and few channels (rewritten_rows.py).
  product: windows of one pixel, by one matrix product.
  im2col, taps: all that the taps see in one product, or a product for each tap (rewritten_products.py).
  winograd: 3x3 without strides, in 3D with the frames that a window sees on the channels (rewritten_winograd.py).
  frames: 3D as lax's 2D, with frames folded into the batch or onto the channels (rewritten_frames.py).
  phases: the input gradient of strides as lax's convolutions without (rewritten_phases.py). The other forms of input
    gradients have such phases too.
  rule: one of those above by a rule of thumb, for windows that nobody measured.

All but the first are for CPUs, and work a block of about `pixels` outputs at a time (rewritten_blocks.py). Axes along
which the window has one tap are folded away first. Groups are a batch of products.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import reference
from ..dispatch import Refused
from . import rewritten_frames as frames
from . import rewritten_phases as phases
from . import rewritten_products as products
from . import rewritten_rows as rows
from . import rewritten_winograd as winograd
from .rewritten_blocks import forward, weight_gradient
from .rewritten_window import Pairs, Window, fold

_BLOCKS: tuple[Mapping[str, Any], ...] = (
    {"form": "im2col", "pixels": 256},
    {"form": "im2col", "pixels": 2048},
    {"form": "taps", "pixels": 1024},
)
_RULE: Mapping[str, Any] = {"form": "rule"}
_WINOGRAD: tuple[Mapping[str, Any], ...] = ({"form": "winograd", "pixels": 1024}, {"form": "winograd", "pixels": 4096})

FORMS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "conv": ({"form": "product"}, *_BLOCKS, *_WINOGRAD, {"form": "frames"}, _RULE),
    "conv_input_gradient": ({"form": "product"}, *_BLOCKS, *_WINOGRAD, {"form": "frames"}, {"form": "phases"}, _RULE),
    "conv_weight_gradient": ({"form": "product"}, *_BLOCKS, *_WINOGRAD, _RULE),
}
"""What the tuner tries for each operation."""

# Outputs of a block where nothing was measured: what the window sees of so many stays in a cache of 512 KiB or a few
# times as much.
_PIXELS = {"im2col": 256}
_MOST_PIXELS = 1024
# A product or a copy is written out for every tap, and a convolution for every phase; 7x7x7 is the largest window of
# a known model.
_MOST_TAPS = 343
_MOST_PHASES = 27
# Products of fewer channels than this, one for each tap, take longer to start than to compute.
_LEAST_CHANNELS = 16


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    form: str | None = None,
    pixels: int | None = None,
    outputs: int | None = None,
) -> jax.Array:
    """x `[N, *spatial, C]`, kernel `[*window, C / groups, F]` to `[N, *spatial', F]` in x's dtype.

    Args:
      form: one of the module's list; None is "rows" where that serves the call, and "rule" elsewhere.
      pixels: outputs of a block.
      outputs: those of a row that share a step, of form "rows" alone.

    Raises:
      Refused: the form does not serve the call.
    """
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    if _is_rows(form, outputs, kernel, groups):
        return rows.conv(x, kernel, **options, outputs=outputs)
    window = Window(kernel.shape[:-2], tuple(strides), tuple(dilation))
    channels = kernel.shape[-2]
    form = _rule("conv", window, channels, groups) if form in (None, "rule") else form
    _check("conv", form, window, x.shape, channels, groups)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return reference.conv(x, kernel, **options)

    def rewritten(x: jax.Array, kernel: jax.Array) -> jax.Array:
        function = partial(_conv, window=window, padding=padding, form=form, pixels=pixels)
        if groups == 1:
            return function(x, kernel)
        return _channels_last(jax.vmap(function)(_grouped(x, groups), _grouped(kernel, groups)))

    return _with_derivatives(rewritten, plain)(x, kernel)


def conv_input_gradient(
    g: jax.Array,
    kernel: jax.Array,
    *,
    spatial: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    form: str | None = None,
    pixels: int | None = None,
    outputs: int | None = None,
) -> jax.Array:
    """What a cotangent g of `conv` means for x `[N, *spatial, C]`, in g's dtype; arguments as for `conv`.

    Raises:
      Refused: the form does not serve the call.
    """
    options = {"spatial": spatial, "strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    if _is_rows(form, outputs, kernel, groups):
        return rows.conv_input_gradient(g, kernel, **options, outputs=outputs)
    window = Window(kernel.shape[:-2], tuple(strides), tuple(dilation))
    channels = kernel.shape[-1] // groups
    form = _rule("conv_input_gradient", window, channels, groups) if form in (None, "rule") else form
    _check("conv_input_gradient", form, window, g.shape, channels, groups)

    def plain(g: jax.Array, kernel: jax.Array) -> jax.Array:
        return reference.conv_input_gradient(g, kernel, **options)

    def rewritten(g: jax.Array, kernel: jax.Array) -> jax.Array:
        how = {"window": window, "padding": padding, "spatial": spatial, "form": form, "pixels": pixels}
        if groups == 1:
            return _input_gradient(g, kernel, **how)
        return _channels_last(jax.vmap(partial(_input_gradient, **how))(_grouped(g, groups), _grouped(kernel, groups)))

    return _with_derivatives(rewritten, plain)(g, kernel)


def conv_weight_gradient(
    x: jax.Array,
    g: jax.Array,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int,
    form: str | None = None,
    pixels: int | None = None,
    outputs: int | None = None,
) -> jax.Array:
    """What a cotangent g of `conv` means for the kernel, float32 or wider; arguments as for `conv`.

    Raises:
      Refused: the form does not serve the call.
    """
    options = {"window": window, "strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    kernel = jax.ShapeDtypeStruct((*window, x.shape[-1] // groups, g.shape[-1]), x.dtype)
    if _is_rows(form, outputs, kernel, groups):
        return rows.conv_weight_gradient(x, g, **options, outputs=outputs)
    sliding = Window(tuple(window), tuple(strides), tuple(dilation))
    channels = kernel.shape[-2]
    form = _rule("conv_weight_gradient", sliding, channels, groups) if form in (None, "rule") else form
    _check("conv_weight_gradient", form, sliding, x.shape, channels, groups)

    def plain(x: jax.Array, g: jax.Array) -> jax.Array:
        return reference.conv_weight_gradient(x, g, **options)

    def rewritten(x: jax.Array, g: jax.Array) -> jax.Array:
        function = partial(_weight_gradient, window=sliding, padding=padding, form=form, pixels=pixels)
        if groups == 1:
            return function(x, g)
        return _channels_last(jax.vmap(function)(_grouped(x, groups), _grouped(g, groups)))

    return _with_derivatives(rewritten, plain)(x, g)


def _is_rows(form: str | None, outputs: int | None, kernel: Any, groups: int) -> bool:
    if form is not None and form != "rows" and outputs is not None:
        raise Refused(f"outputs={outputs} is for form 'rows', not {form!r}")
    return form == "rows" or (form is None and rows.serves(kernel.shape, groups))


def _check(operation: str, form: str, window: Window, shape: Sequence[int], channels: int, groups: int) -> None:
    """Raises Refused where a form does not serve a call, or is what lax does anyway."""
    taps = window.taps
    if form not in {each["form"] for each in FORMS[operation]}:
        raise Refused(f"{operation} has no form {form!r}")
    if math.prod(shape) == 0:
        raise Refused(f"{operation} has nothing to compute of {list(shape)}")
    if math.prod(taps) > _MOST_TAPS:
        raise Refused(f"at most {_MOST_TAPS} taps are written out, not a window {taps}")
    if (form == "product") != (math.prod(taps) == 1):
        raise Refused(f"form {form!r} is not for a window {taps}: 'product' is for one pixel, and nothing else is")
    if operation == "conv_input_gradient" and phases.count(window) > _MOST_PHASES:
        raise Refused(f"at most {_MOST_PHASES} phases are written out, not those of strides {window.strides}")
    if form == "taps" and channels < _LEAST_CHANNELS:
        raise Refused(f"a product for each tap needs at least {_LEAST_CHANNELS} channels, not {channels}")
    if form == "winograd":
        kept = fold(window, ((0, 0),) * len(taps)).window
        plain = set(kept.strides[-2:]) == {1} and set(kept.dilation[-2:]) == {1}
        if operation == "conv_input_gradient":
            plain = plain and set(kept.strides) == {1}
        if kept.taps[-2:] != (3, 3) or not plain:
            raise Refused(f"form 'winograd' is for 3x3 with neither strides nor dilation, not {window}")
    if form in ("frames", "phases") and groups > 1:
        raise Refused(f"form {form!r} is lax's convolution, which is slow in groups, got groups={groups}")
    if form == "frames" and (len(taps) < 3 or (max(window.strides) > 1 and operation == "conv_input_gradient")):
        raise Refused(f"form 'frames' is for 3D, its gradient without strides, not {window}")
    if form == "phases" and max(window.strides) == 1:
        raise Refused(f"form {form!r} is for strides, not {window}")


def _rule(operation: str, window: Window, channels: int, groups: int) -> str:
    """A form for a call of which nothing is known; `channels` are those of the operand that the window slides over.

    By CPU time of one thread, for layers of ResNet-18, R3D-18, R(2+1)D-18 and I3D, these were the fastest or within a
    third of it, but for 2D with strides: there lax's own input gradient took 0.7 to 0.8 times as long.
    """
    kept = fold(window, ((0, 0),) * len(window.taps)).window
    is_plain = set(kept.strides) == {1} == set(kept.dilation)
    if math.prod(window.taps) == 1:
        return "product"
    if operation == "conv_weight_gradient":
        return "im2col"
    if is_plain and kept.taps[-2:] == (3, 3) and channels >= _LEAST_CHANNELS:
        return "winograd"
    if operation == "conv_input_gradient" and not is_plain:
        return "im2col" if groups > 1 or channels < _LEAST_CHANNELS else "taps"
    return "frames" if len(window.taps) == 3 and groups == 1 else "im2col"


def _conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    padding: Pairs,
    form: str,
    pixels: int | None,
    *,
    turned: bool = False,
) -> jax.Array:
    """Turned: with `phases.turned` of the kernel."""
    if turned and form in ("im2col", "frames"):
        kernel, turned = phases.turned(kernel), False
    channels, features = reversed(kernel.shape[-2:]) if turned else kernel.shape[-2:]
    shape = (x.shape[0], *_outputs(x.shape[1:-1], window, padding), features)
    folded = fold(window, padding)
    x, window = folded.x(x), folded.window
    kernel = kernel.reshape(*window.taps, *kernel.shape[-2:])
    taps = math.prod(window.taps)
    # What a form keeps for a pixel, beside x and the result.
    values, pixels = taps * channels, pixels or _PIXELS.get(form, _MOST_PIXELS)
    if taps == 1:
        function, pixels = partial(products.taps, kernel=kernel, window=window, turned=turned), math.prod(shape)
    elif form == "im2col":
        function = partial(products.im2col, kernel=kernel, window=window)
    elif form == "taps":
        function = partial(products.taps, kernel=kernel, window=window, turned=turned)
        values = taps * (channels + features)
    elif form == "winograd":
        matrices = winograd.transformed_kernel(kernel, turned=turned)
        function = partial(winograd.conv, transformed=matrices, window=window, turned=turned)
        values = 4 * (math.prod(window.taps[:-2]) * channels + features)
    else:
        function = partial(frames.conv, kernel=kernel, window=window)
        values = window.taps[0] * channels
        pixels = math.prod(shape) if len(window.taps) < 3 else pixels
    most = max(1, (x.size + kernel.size + math.prod(shape)) // values)
    return forward(function, x, window, folded.padding, min(pixels, most)).reshape(shape)


def _input_gradient(
    g: jax.Array,
    kernel: jax.Array,
    window: Window,
    padding: Pairs,
    spatial: Sequence[int],
    form: str,
    pixels: int | None,
) -> jax.Array:
    convolve = partial(_conv, form="frames" if form == "phases" else form, pixels=pixels, turned=True)
    return phases.input_gradient(g, kernel, window, padding, spatial, convolve)


def _weight_gradient(
    x: jax.Array, g: jax.Array, window: Window, padding: Pairs, form: str, pixels: int | None
) -> jax.Array:
    folded = fold(window, padding)
    shape = (*window.taps, x.shape[-1], g.shape[-1])
    x, g, window = folded.x(x), folded.outputs(g), folded.window
    taps = math.prod(window.taps)
    core: Callable[..., jax.Array] = products.im2col_weight_gradient
    if form in ("product", "taps"):
        core = products.taps_weight_gradient
    pixels = g.size if taps == 1 else pixels or _PIXELS.get(form, _MOST_PIXELS)
    values = taps * x.shape[-1]
    if form == "winograd":
        core = winograd.weight_gradient
        values = 4 * (math.prod(window.taps[:-2]) * x.shape[-1] + g.shape[-1])
    most = max(1, (x.size + g.size + math.prod(shape)) // values)
    out = weight_gradient(partial(core, window=window), x, g, window, folded.padding, min(pixels, most))
    return (winograd.of_kernel(out, window) if form == "winograd" else out).reshape(shape)


def _outputs(sizes: Sequence[int], window: Window, padding: Pairs) -> tuple[int, ...]:
    return window.outputs([n + sum(pads) for n, pads in zip(sizes, padding, strict=True)])


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """`[..., groups x C]` to `[groups, ..., C]`."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)


def _channels_last(x: jax.Array) -> jax.Array:
    """`[groups, ..., C]` to `[..., groups x C]`."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)


def _with_derivatives(function: Callable[..., jax.Array], plain: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function` with plain lax's derivatives: a loop's own would write all of x once a block."""
    made = jax.custom_jvp(function)
    made.defjvp(lambda primals, tangents: (made(*primals), jax.jvp(plain, primals, tangents)[1]))
    return made
