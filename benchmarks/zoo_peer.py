"""Our side of `python -m benchmarks.models`: a process that `torch_peer/serving.py` describes, run as a module."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.model_pairs import PAIRS, Pair
from benchmarks.torch_peer import serving
from zoo.convert import apply_table
from zoo.kernels import dispatch

_loaded: dict[str, Callable[[], Any]] = {}


def hello() -> dict[str, Any]:
    return {"versions": {"jax": jax.__version__}}


def load(form: str, model: str, training: bool, rate: float, weights: str, inputs: str, result: str) -> dict[str, Any]:
    """Makes a program ready as `form`, and keeps what its first call gives in the file `result`.

    That is the network's output, or the loss and the parameters after the step, by our names.
    """
    pair = PAIRS[model]
    network = filled(pair, weights)
    with np.load(inputs) as arrays:
        operands = [jnp.asarray(arrays[str(place)]) for place in range(len(pair.shapes))]
        labels = jnp.asarray(arrays["labels"]) if pair.labels else None
    (network.train if training else network.eval)()
    network.set_attributes(nnx.Dropout, deterministic=True, raise_if_not_found=False)
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    flops = counted(graph, params, rest, operands)
    if training:
        call = step(graph, params, rest, operands, labels, rate)
    else:
        function = jax.jit(lambda params, rest, *operands: nnx.merge(graph, params, rest)(*operands))
        call = lambda: jax.block_until_ready(function(params, rest, *operands))  # noqa: E731
    kept: dict[str, np.ndarray] = {}

    def first():
        out = call()
        if not kept and training:
            loss, after, _ = out
            kept.update({"loss": np.array(loss)} | _named(after))
        elif not kept:
            kept["output"] = np.array(out)

    _, seconds = serving.first_and_next(first)
    np.savez(result, **kept)  # pyright: ignore[reportArgumentType]
    _loaded[form] = call
    return {"compile_seconds": seconds, "flops": (3 if training else 1) * flops}


def filled(pair: Pair, weights: str) -> Any:
    """Our network with PyTorch's arrays; a file of those after a step has its loss, too.

    Raises:
      UserError: they do not match one to one.
    """
    network = pair.create()
    with np.load(weights) as arrays:
        tree = apply_table(pair.table, {name: arrays[name] for name in arrays if name != "loss"}, network)
    paths = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in _leaves(tree)}
    for path, variable in nnx.to_flat_state(nnx.state(network, nnx.Not(nnx.RngState))):
        variable.set_value(jnp.asarray(paths[".".join(map(str, path))]))
    return network


def updated(model: str, weights: str, result: str) -> dict[str, Any]:
    """Keeps the parameters that PyTorch's arrays stand for, by our names."""
    np.savez(result, **_named(nnx.state(filled(PAIRS[model], weights), nnx.Param)))  # pyright: ignore[reportArgumentType]
    return {}


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _named(state: Any) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.array(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


def step(graph: Any, params: Any, rest: Any, operands: list[Any], labels: Any, rate: float) -> Callable[[], Any]:
    """Forward, backward and an update by plain gradient descent; each call goes on from the one before."""

    def loss(params: Any, rest: Any, *operands: jax.Array) -> tuple[jax.Array, Any]:
        network = nnx.merge(graph, params, rest, copy=True)
        out = network(*operands)
        if labels is None:
            value = jnp.square(out).mean()
        else:
            value = optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()
        return value, nnx.state(network, nnx.Not(nnx.Param))

    @partial(jax.jit, donate_argnums=(0, 1))
    def stepped(params: Any, rest: Any, *operands: jax.Array) -> Any:
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params, rest, *operands)
        return value, jax.tree.map(lambda p, g: p - rate * g, params, gradients), rest

    state = [params, rest]

    def call() -> Any:
        value, *state[:] = jax.block_until_ready(stepped(*state, *operands))
        return value, *state

    return call


def counted(graph: Any, params: Any, rest: Any, operands: list[Any]) -> float:
    """Floating-point operations of the forward pass's products, a multiply-add as two, with plain lax for all."""
    with dispatch.prefer("xla"):
        traced = jax.make_jaxpr(lambda params, rest, *operands: nnx.merge(graph, params, rest)(*operands))(
            params, rest, *operands
        )
    return _products(traced.jaxpr)


def _products(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, options = equation.primitive.name, equation.params
        out = equation.outvars[0].aval
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            features = kernel.shape[options["dimension_numbers"].rhs_spec[0]]
            total += 2 * out.size * kernel.size / features
        elif name == "dot_general":
            left = equation.invars[0].aval
            (contracted, _), _ = options["dimension_numbers"]
            total += 2 * out.size * float(np.prod([left.shape[axis] for axis in contracted]))
        times = options["length"] if name == "scan" else 1
        for inner in _within(options):
            total += times * _products(inner)
    return total


def _within(options: Mapping[str, Any]) -> list[Any]:
    """The programs that an equation calls."""
    found = (getattr(value, "jaxpr", value) for value in options.values())
    return [each for each in found if hasattr(each, "eqns")]


def turn(form: str, seconds: float) -> dict[str, Any]:
    return serving.turn(_loaded[form], seconds)


def peak(size: int) -> dict[str, Any]:
    left, right = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in range(2))
    product = jax.jit(jnp.matmul)
    return serving.peak(lambda: jax.block_until_ready(product(left, right)), size)


if __name__ == "__main__":
    serving.serve({"hello": hello, "load": load, "updated": updated, "turn": turn, "peak": peak})
