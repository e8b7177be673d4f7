"""How many floating-point operations a function's matrix products and convolutions are, loops counted as they run.

XLA's own count has the body of a loop once, and what a compiled program does beside the model, such as products that
are computed twice. This one is what the model asks for: the numerator of model FLOPs utilisation.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr


def flops(function: Callable[..., Any], *shapes: Any) -> float:
    """Of one call with arguments of these shapes; a multiply-add counts as two."""
    return _of(jax.make_jaxpr(function)(*shapes).jaxpr)


def _of(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _product(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        else:
            inner = [_of(called) for called in _called(equation.params)]
            # Of a choice one branch runs.
            one = max(inner, default=0.0) if name == "cond" else sum(inner)
            total += equation.params.get("length", 1) * one if name == "scan" else one
    return total


def _called(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """The programs within an equation: bodies, branches, what is jitted."""
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            called = getattr(one, "jaxpr", one)  # a closed one has its constants with it
            if isinstance(called, Jaxpr):
                yield called


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> float:
    """Products with padding, and with what dilation puts between, are none."""
    numbers = equation.params["dimension_numbers"]
    left, kernel = (v.aval.shape for v in equation.invars[:2])
    result = equation.outvars[0].aval.shape
    total = 2.0 * result[numbers.out_spec[0]] * result[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for i, (of_left, of_kernel, of_result) in enumerate(axes):
        stride, (before, _) = equation.params["window_strides"][i], equation.params["padding"][i]
        apart, spread = equation.params["lhs_dilation"][i], equation.params["rhs_dilation"][i]
        places = np.add.outer(np.arange(result[of_result]) * stride, np.arange(kernel[of_kernel]) * spread) - before
        meets = (places >= 0) & (places <= (left[of_left] - 1) * apart) & (places % apart == 0)
        total *= int(meets.sum())
    return total
