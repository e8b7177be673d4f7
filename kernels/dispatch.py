"""Which implementation of an operation runs, and why another does not.

A public function makes a `Call`; its forward pass and its gradients are each run as an operation of the table below.
Asked for nothing, an operation takes on each platform what was measured to be best there (`tuned/<platform>.json`),
and plain lax where nothing was measured. The platform is the one that the computation is lowered for, so a program
compiled for a TPU on a machine without one holds the TPU's kernels.
"""

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .over_batch import Refused, Role, over_batch

NAMES = ("xla", "rewritten", "pallas_tpu", "pallas_gpu")
_PLATFORMS = ("tpu", "cuda", "cpu")
_KERNEL_DTYPES = (jnp.float32, jnp.bfloat16)
_preferred: ContextVar[tuple[str, ...] | None] = ContextVar("preferred", default=None)
_listeners: ContextVar[list["Heard"] | None] = ContextVar("listeners", default=None)

type Heard = tuple[str, tuple[Any, ...], Mapping[str, Any]]
"""An operation, its operands' shapes and dtypes with one batch axis, and its options."""


@dataclass(frozen=True)
class Operation:
    """Where the implementations of an operation are, and which of its operands and results hold the batch.

    Every implementation is a function named like the operation, in the module given here. It takes the operands in
    order, `[N, *spatial, C]` with one batch axis, the options by name, and the block sizes that were found for it.
    Operands None: the function sees to its batch, and to its gradient, itself.
    """

    modules: Mapping[str, str]
    operands: tuple[Role, ...] | None
    results: tuple[Role, ...] = ("batch",)


@dataclass(frozen=True)
class Call:
    """A call of a public function: what its forward pass and its gradients have in common, all of it static."""

    options: tuple[tuple[str, Any], ...]
    preference: tuple[str, ...] | None
    shapes: str
    kind: str
    work: int


OPERATIONS = {
    "conv": Operation(
        {"xla": "reference", "rewritten": "conv.rewritten", "pallas_tpu": "conv.tpu", "pallas_gpu": "conv.gpu"},
        ("batch", "shared"),
    ),
    "conv_input_gradient": Operation(
        {"xla": "reference", "rewritten": "conv.rewritten", "pallas_tpu": "conv.tpu_input_gradient"},
        ("batch", "shared"),
    ),
    "conv_weight_gradient": Operation(
        {"xla": "reference", "rewritten": "conv.rewritten", "pallas_tpu": "conv.tpu_weight_gradient"},
        ("batch", "batch"),
        ("sum",),
    ),
    "conv_bias_act_pool": Operation(
        {"xla": "reference", "pallas_tpu": "conv.tpu_fused_pool"}, ("batch", "shared", "shared", "batch")
    ),
    "depthwise_conv": Operation(
        {"xla": "reference", "rewritten": "depthwise.rewritten", "pallas_tpu": "depthwise.tpu"}, ("batch", "shared")
    ),
    "depthwise_conv_input_gradient": Operation(
        {"xla": "reference", "rewritten": "depthwise.rewritten", "pallas_tpu": "depthwise.tpu_gradients"},
        ("batch", "shared"),
    ),
    "depthwise_conv_weight_gradient": Operation(
        {"xla": "reference", "rewritten": "depthwise.rewritten", "pallas_tpu": "depthwise.tpu_gradients"},
        ("batch", "batch"),
        ("sum",),
    ),
    "max_pool": Operation(
        {"xla": "reference", "rewritten": "pool.rewritten", "pallas_tpu": "pool.tpu_max", "pallas_gpu": "pool.gpu"},
        ("batch",),
    ),
    "max_pool_gradient": Operation(
        {"xla": "reference", "rewritten": "pool.rewritten", "pallas_tpu": "pool.tpu_max_gradient"},
        ("batch", "batch", "batch"),
    ),
    "avg_pool": Operation(
        {"xla": "reference", "rewritten": "pool.rewritten", "pallas_tpu": "pool.tpu_avg", "pallas_gpu": "pool.gpu"},
        ("batch",),
    ),
    "avg_pool_gradient": Operation(
        {"xla": "reference", "rewritten": "pool.rewritten", "pallas_tpu": "pool.tpu_avg"}, ("batch",)
    ),
    "conv_lstm": Operation(
        {"xla": "reference", "rewritten": "conv_lstm.rewritten", "pallas_tpu": "conv_lstm.vjp"}, None
    ),
    "conv_lstm_stack": Operation(
        {"xla": "reference", "rewritten": "conv_lstm.rewritten", "pallas_tpu": "conv_lstm.vjp"}, None
    ),
}


def implementation(operation: str, name: str) -> Callable[..., Any]:
    """The plain function, loaded when first asked for.

    Raises:
      Refused: the operation has no implementation of that name.
    """
    modules = OPERATIONS[operation].modules
    if name not in modules:
        raise Refused(f"{operation} has no such implementation")
    return getattr(importlib.import_module(f".{modules[name]}", __package__), operation)


def preference(asked: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The implementations asked for, in order; None leaves the choice to the tables.

    Raises:
      ValueError: a name that is none of `NAMES`.
    """
    if asked is None:
        return _preferred.get()
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in names:
        if name not in NAMES:
            raise ValueError(f"implementation {name!r} is none of {', '.join(NAMES)}")
    if not names:
        raise ValueError("implementation=() names none; leave it out to let the zoo choose")
    return names


@contextmanager
def prefer(*names: str) -> Iterator[None]:
    """Calls that are traced within, and name no implementation, take the first of these that serves them.

    It compares implementations of whole models: `with prefer("xla"): ...`. What jit has traced before stays as it is.
    """
    token = _preferred.set(preference(names))
    try:
        yield
    finally:
        _preferred.reset(token)


@contextmanager
def listening() -> Iterator[list[Heard]]:
    """Collects the calls that are traced within: tuning measures what models call."""
    heard: list[Heard] = []
    token = _listeners.set(heard)
    try:
        yield heard
    finally:
        _listeners.reset(token)


@cache
def _tuned(platform: str) -> Mapping[str, Mapping[str, Any]]:
    """What was measured on a platform: operation and shapes to an implementation's name and its block sizes.

    Shapes that were not measured take what was best for their kind, or else for their number of axes, unless it is so
    little work (`from_work`) that there is less to win than the form's compilation costs.
    """
    file = resources.files(__package__).joinpath("tuned", f"{platform}.json")
    return json.loads(file.read_text())["choices"] if file.is_file() else {}


def _choice(platform: str, operation: str, call: Call) -> Mapping[str, Any] | None:
    table = _tuned(platform)
    axes = len(dict(call.options).get("strides", ()))
    names = (f"{operation} {call.shapes}", f"{operation} of {call.kind}", f"{operation} of {axes} axes")
    choice = next((table[name] for name in names if name in table), None)
    if choice is not None and call.work < choice.get("from_work", 0):
        return None
    return None if choice is None or choice["implementation"] == "xla" else choice


def call(
    operation: str, operands: Sequence[Any], options: Mapping[str, Any], asked: str | Sequence[str] | None
) -> Call:
    """The call of a public function with these operands, x first, and options; `asked` is its `implementation`."""
    heard = _listeners.get()
    if heard is not None:
        shapes = (None if o is None else jax.ShapeDtypeStruct(o.shape, o.dtype) for o in operands)
        heard.append((operation, tuple(shapes), options))
    shapes = describe(operands, options)
    times = work(shapes) * operands[0].shape[0]
    return Call(tuple(options.items()), preference(asked), shapes, kind(operands, options), times)


def describe(operands: Sequence[Any], options: Mapping[str, Any]) -> str:
    """A call's shapes as the tables name them: dtype, shapes without the batch, options; `-` stands for an absence.

    `bfloat16 8x28x28x192 window=3,3,3 strides=1,1,1 padding=1:1,1:1,1:1`
    """
    x, *others = operands
    words = [
        str(x.dtype),
        "x".join(map(str, x.shape[1:])),
        *("-" if o is None else "x".join(map(str, o.shape)) for o in others),
    ]
    return " ".join(words + [f"{name}={_written(value)}" for name, value in options.items()])


def kind(operands: Sequence[Any], options: Mapping[str, Any]) -> str:
    """What calls have in common that differ in sizes and channels alone: `3x3 strides=1,1 dilation=1,1`."""
    window = options.get("window") or (() if len(operands) < 2 else operands[1].shape[:-2])
    same = {name: options[name] for name in ("strides", "dilation") if name in options}
    words = ["x".join(map(str, window)), *(f"{name}={_written(value)}" for name, value in same.items())]
    return " ".join(words + ["grouped"] * (options.get("groups", 1) > 1))


def work(described: str) -> int:
    """About how many multiplications, or comparisons, one image of the batch takes; by what `describe` says."""
    _, *words = described.split()
    options = dict(word.split("=") for word in words if "=" in word)
    *image, channels = map(int, words[0].split("x"))
    steps = math.prod(map(int, options.get("strides", "1").split(",")))
    kernel = words[1] if "=" not in words[1] else None
    each = kernel.split("x") if kernel else [channels, *options.get("window", "1").split(",")]
    return math.prod(image) // steps * math.prod(map(int, each))


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(":".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)
    return "-" if value is None else str(value)


def is_plain(operations: Sequence[str], call: Call) -> bool:
    """Whether plain lax serves a call and its gradients on every platform, so that lax's own derivatives do."""
    if call.preference is not None:
        return call.preference[0] == "xla"
    return not any(_choice(platform, operation, call) for platform in _PLATFORMS for operation in operations)


def run(operation: str, operands: tuple[Any, ...], call: Call, **more: Any) -> Any:
    """An operation by the implementation that the call asks for, or that its platform's table names.

    A gradient whose implementation was asked for by name takes plain lax where that one cannot serve it.

    Raises:
      ValueError: none of the implementations asked for serves this call; the message has all their reasons.
    """
    options = dict(call.options) | more
    if call.preference is not None:
        names = (*call.preference, "xla") if operation.endswith("_gradient") else call.preference
        return _first_to_serve([(name, options) for name in names], operation, *operands)
    plain = "xla", options
    branches = {}
    for platform in _PLATFORMS:
        choice = _choice(platform, operation, call)
        if choice is not None:
            chosen = choice["implementation"], options | choice.get("blocks", {})
            branches[platform] = partial(_first_to_serve, (chosen, plain), operation)
    default = partial(_first_to_serve, (plain,), operation)
    return lax.platform_dependent(*operands, **branches, default=default) if branches else default(*operands)


def _first_to_serve(ways: Sequence[tuple[str, Mapping[str, Any]]], operation: str, *operands: Any) -> Any:
    """By the first of the implementations, each with the options that it is given."""
    reasons = []
    for name, options in ways:
        try:
            return _serve(name, operation, options, operands)
        except Refused as reason:
            reasons.append(f"{name}: {reason}")
    x = operands[0]
    raise ValueError(f"nothing asked for serves {operation} of {x.dtype}{list(x.shape)}: {'; '.join(reasons)}")


def _serve(name: str, operation: str, options: Mapping[str, Any], operands: tuple[Any, ...]) -> Any:
    if name != "xla" and any(min(pair) < 0 for key in ("padding", "pool_padding") for pair in options.get(key) or ()):
        raise Refused("negative padding, which cuts the input, is plain lax's")
    function = partial(implementation(operation, name), **options)
    if name == "xla":
        return function(*operands)
    for leaf in jax.tree.leaves(operands):
        if name.startswith("pallas") and leaf.dtype not in _KERNEL_DTYPES:
            raise Refused(f"kernels compute in float32 and bfloat16, not {leaf.dtype}")
    roles = OPERATIONS[operation].operands
    if roles is None:
        return function(*operands)
    run_over_batch = partial(_over_batch, function, roles, OPERATIONS[operation].results)
    if name != "rewritten":
        return run_over_batch(*operands)
    # Splitting by hand has no derivatives. Those of a plain function are its own.
    differentiable = jax.custom_jvp(run_over_batch)
    differentiable.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return differentiable(*operands)


def _over_batch(function: Callable[..., Any], roles: Sequence[Role], results: Sequence[Role], *operands: Any) -> Any:
    return over_batch(function, operands, roles, results)


@contextmanager
def forward_mode_is_refused() -> Iterator[None]:
    """Says which implementation has forward-mode derivatives, where JAX says only that this one has none.

    Raises:
      TypeError: a derivative was taken in forward mode. Within jit JAX finds that out later, and its own words remain.
    """
    try:
        yield
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        way_out = 'implementation="xla", or trace within zoo.kernels.prefer("xla")'
        raise TypeError(
            f"forward-mode derivatives (jvp, jacfwd, hessian) are plain lax's: ask for {way_out}"
        ) from error


def cotangent(of: jax.Array, value: jax.Array) -> jax.Array:
    """A gradient as its operand's type has it: the operand's dtype, and summed over the devices that share it."""
    shared = tuple(jax.typeof(value).manual_axis_type.varying - jax.typeof(of).manual_axis_type.varying)
    return (lax.psum(value, shared) if shared else value).astype(of.dtype)
