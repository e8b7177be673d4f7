"""The GPU benchmark, as far as it goes without a GPU: what it refuses, what it calls things, what it chooses."""

import jax
import numpy as np
import pytest

from benchmarks import gpu
from zoo import kernels
from zoo.errors import UserError
from zoo.kernels import dispatch
from zoo.kernels.case import Case
from zoo.kernels.conv.cases import CASES as CONV
from zoo.kernels.pool.cases import CASES as POOL

pytestmark = pytest.mark.slow  # test_implementations.py has the quick ones of all rooms


def test_says_that_there_is_no_gpu(monkeypatch):
    def devices(kind):
        raise RuntimeError(f"Unknown backend {kind}")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(UserError, match="no GPU that JAX can use: Unknown backend gpu"):
        gpu.main([])


@pytest.mark.parametrize(
    "case", [c for c in (*POOL, *CONV) if c.operation != "conv_bias_act_pool"], ids=lambda c: c.name
)
def test_names_calls_as_dispatch_does(case, monkeypatch):
    """Its table would otherwise be one that no call is found in."""
    looked_up = []

    def is_plain(operations, call):
        looked_up.append(f"{operations[0]} {call.shapes}")
        return True

    monkeypatch.setattr(dispatch, "is_plain", is_plain)
    arrays = [jax.ShapeDtypeStruct(shape, case.dtype) for shape in case.shapes]
    jax.eval_shape(lambda *a: getattr(kernels, case.operation)(*a, **case.options), *arrays)
    operands, options = case.resolved()
    assert looked_up == [f"{case.operation} {dispatch.describe(operands, options)}"]


def test_times_what_serves(monkeypatch):
    monkeypatch.setattr(gpu, "ROUNDS", 3)
    operands, options = Case("small", "none", "max_pool", ((2, 3, 8, 8, 4),), {"window": (2, 2)}).resolved()
    assert operands[0].shape == (6, 8, 8, 4)
    # Four channels are no multiple of 8, so the kernel refuses and is left out.
    measured = gpu.times("max_pool", operands, options, gpu.candidates("max_pool", operands))
    assert set(measured) == {("xla", ()), ("rewritten", ())}
    assert min(measured.values()) > 0


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    right = dispatch.implementation

    def wrong(x, **options):
        return right("max_pool", "xla")(x, **options) + 1

    monkeypatch.setattr(dispatch, "implementation", lambda o, name: wrong if name == "rewritten" else right(o, name))
    operands, options = Case("small", "none", "max_pool", ((2, 8, 8, 4),), {"window": (2, 2)}).resolved()
    with pytest.raises(ArithmeticError, match=r"by rewritten \{\} is off"):
        gpu.times("max_pool", operands, options, [("rewritten", ())])


def test_chooses_what_wins_by_more_than_chance():
    blocks = (("columns", 8),)
    assert gpu.choice({("xla", ()): 100.0, ("pallas_gpu", ()): 80.0, ("pallas_gpu", blocks): 50.0}) == {
        "implementation": "pallas_gpu",
        "blocks": {"columns": 8},
    }
    assert gpu.choice({("xla", ()): 100.0, ("rewritten", ()): 50.0}) == {"implementation": "rewritten"}
    assert gpu.choice({("xla", ()): 100.0, ("pallas_gpu", ()): 99.0}) is None
    assert gpu.choice({("xla", ()): 1.0, ("pallas_gpu", ()): np.inf}) is None
