"""How every GPU kernel here is called, and how a machine without a GPU runs one to check it.

The kernels are Mosaic GPU's (`plgpu.kernel`). JAX compiles them for a named GPU with no GPU there, and interprets them
on the CPU, memories, barriers and tensor cores included, where it also looks for races.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu

_interpreted: ContextVar[bool] = ContextVar("interpreted", default=False)


@contextmanager
def interpret(params: plgpu.InterpretGPUParams) -> Iterator[None]:
    """GPU kernels that are traced within run in JAX's interpreter, on the CPU; jit traces anew within.

    `with interpret(plgpu.InterpretGPUParams(detect_races=True)): ...`
    """
    token = _interpreted.set(True)
    try:
        with plgpu.force_gpu_interpret_mode(params):
            yield
    finally:
        _interpreted.reset(token)


def interpreted() -> bool:
    """Whether kernels are interpreted here, which some of a GPU's copies cannot be."""
    return _interpreted.get()


def capability() -> str | None:
    """The compute capability of this process's GPU, "9.0" for Hopper; None without a GPU."""
    try:
        return str(jax.devices("gpu")[0].compute_capability)
    except RuntimeError:
        return None


def call(kernel: Callable[..., None], *, out_type: Any, name: str, **options: Any) -> Callable[..., jax.Array]:
    """`plgpu.kernel(kernel, ...)` with one result, under a name that profilers show.

    Within `jax.shard_map` an array's type says over which mesh axes it varies. That of a kernel's result says over none
    at all; here it varies as the operands do.
    """
    run = plgpu.kernel(kernel, out_type=out_type, kernel_name=name, **options)

    def typed(*operands: jax.Array) -> jax.Array:
        result = run(*operands)
        varying = frozenset[Any]().union(*(jax.typeof(x).manual_axis_type.varying for x in operands))
        missing = tuple(varying - jax.typeof(result).manual_axis_type.varying)
        return jax.lax.pcast(result, missing, to="varying") if missing else result

    return typed
