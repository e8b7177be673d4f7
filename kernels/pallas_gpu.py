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
    """GPU kernels that are traced within run in JAX's interpreter, on the CPU: `with interpret(InterpretGPUParams())`.

    Call jit anew within: what was traced outside stays as it was.
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


def call(kernel: Callable[..., None], *, out_type: Any, name: str, **options: Any) -> Callable[..., jax.Array]:
    """`plgpu.kernel(kernel, ...)` with one result, under a name that profilers show."""
    return plgpu.kernel(kernel, out_type=out_type, kernel_name=name, **options)
