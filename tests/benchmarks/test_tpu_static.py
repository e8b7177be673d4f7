"""The static clock: programs small enough to count by hand, and what the real compiler's output must come to."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import tpu_static
from benchmarks.tpu_static import CHIPS, EstimateError, estimate
from benchmarks.tpu_static.execute import DMA_LATENCY, Machine
from benchmarks.tpu_static.program import Decoder

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler comes with `uv sync --extra tpu`"
)


def assembly(*bundles):
    return [f"{i}:0x{i:x} : {{ {bundle} }}" for i, bundle in enumerate(bundles)]


def run(*bundles, operations=(0,), chip="v5e"):
    decoder = Decoder()
    program = decoder.decode(assembly(*bundles))
    assert not decoder.unknown
    machine = Machine(program, CHIPS[chip], operations)
    return machine.run(0, len(program)), machine.registers


def test_a_loop_is_counted_as_often_as_it_runs():
    # s1 counts to 5; the branch at 2 goes back to 1 after its four delay slots, 3 to 6.
    count, registers = run(
        "s1 = simm.s32 $0",
        "s1 = sadd.s32 s1, $1 ;; v1 = vadd.f32 v1, v2",
        "p0 = slt.s32 s1, $5",
        "(pc) = sbr.rel @p0 $-2 (=0x1)",
        "v3 = vmatmul.bf16.f32 v1",
        "v4 = vld [vmem:0]",
        "[vmem:0] = vst v4",
        "v5 = vrot.slane v4, 1",
    )
    # The first pass sees s1 = 1 and so on: five passes of bundles 1 to 7, one of bundle 0.
    assert registers.scalars["s1"] == 5
    assert count.bundles == count.cycles == 1 + 5 * 7
    assert count.slots == {
        "matmul": 5,
        "matrix_load": 0,
        "vector_load": 5,
        "vector_store": 5,
        "vector_alu": 5,
        "cross_lane": 5,
        "transcendental": 0,
    }
    assert count.ended
    assert count.stuck == 0


def test_a_wait_lasts_until_the_transfer_has_come():
    chip = CHIPS["v5e"]
    count, _ = run(
        "[sflag:3] = dma.hbm_to_vmem [hbm:0], length:$1024, [vmem:0]",
        "v1 = vadd.f32 v1, v2",
        "_ = vwait.ge [sflag:3], $1024",
    )
    moved = 1024 * 32
    assert count.hbm_bytes == moved
    # It is begun in the first cycle, and the wait's own bundle is over before it comes.
    assert count.cycles == pytest.approx(1 + moved / (chip.bandwidth / chip.clock) + DMA_LATENCY)
    assert count.stalled == pytest.approx(count.cycles - 3)


def test_a_wait_for_nothing_is_told():
    count, _ = run("_ = vwait.ge [sflag:3], $1")
    assert count.stuck == 1


def test_predicates_calls_memory_and_division():
    _, registers = run(
        "s1 = simm.s32 $7 ;; p1 = pmov $0",
        "s2 = sadd.s32 @p1 s1, $1 ;; s3 = sadd.s32 @!p1 s1, $1",
        "[smem:$16] = sst s3 ;; _ = sdivrem.u32 s1, $2",
        "s4 = sld [smem:$16] ;; s5 = spop drf",
        "s6 = spop drf",
        "s7 = sshra.s32 $-8, $1 ;; s8 = smax.u32 $-1, $1",
    )
    assert "s2" not in registers.scalars
    assert registers.scalars | {"s8": registers.scalars["s8"] & 0xFFFFFFFF} == {
        "s1": 7,
        "s3": 8,
        "s4": 8,
        "s5": 3,
        "s6": 1,
        "s7": -4,
        "s8": 0xFFFFFFFF,
    }


def test_what_is_not_understood_is_noted_and_floating_scalars_are_not():
    decoder = Decoder()
    decoder.decode(assembly("s1 = sbogus.s32 s2 ;; s3 = sadd.f32 s1, s2 ;; s4 = scvt.s32.f32 s1"))
    assert dict(decoder.unknown) == {"sbogus.s32": 1}


def test_an_operand_that_is_not_understood_is_noted_once_it_is_reached():
    _, registers = run("s1 = sadd.s32 q7, $1", "s2 = sadd.s32 @p3 q8, $1", "s3 = smov.u32 s1")
    assert registers.scalars == {"s1": 1, "s3": 1}
    assert dict(registers.unknown) == {"operand q7": 1}


def test_a_floating_point_number_is_the_bits_that_a_register_holds():
    _, registers = run("s1 = smov.u32 $0.9", "s2 = smov.u32 $-1.5", "s3 = smov.u32 $1.0e-08")
    assert [np.int32(registers.scalars[name]).view(np.float32) for name in ("s1", "s2", "s3")] == [
        np.float32(0.9),
        np.float32(-1.5),
        np.float32(1e-8),
    ]
    assert not registers.unknown


def test_an_unknown_chip_is_refused():
    for of_two_cores in ("v4", "v5p"):
        with pytest.raises(EstimateError, match=f"{of_two_cores} is refused: its programs"):
            estimate(jnp.add, chip=of_two_cores)
    with pytest.raises(EstimateError, match="no chip 'v9'; there are v5e"):
        estimate(jnp.add, chip="v9")


@needs_libtpu
@pytest.mark.parametrize("chip", CHIPS)
def test_an_addition_runs_at_the_speed_of_memory(chip):
    x = jax.ShapeDtypeStruct((128, 1024, 1024), jnp.bfloat16)
    moved = 3 * math.prod(x.shape) * 2
    addition = estimate(jnp.add, x, x, chip=chip)
    assert addition.hbm_bytes == moved
    assert addition.microseconds == pytest.approx(moved / CHIPS[chip].bandwidth * 1e6, rel=0.05)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"ended": False}, "did not reach its end"),
        ({"stuck": 2}, "2 waits for nothing"),
        ({"unknown": {"sbogus": 1}}, "unknown instructions {'sbogus': 1}"),
        ({"error": "out of memory"}, "^out of memory$"),
    ],
)
def test_a_run_that_was_not_clean_is_refused(monkeypatch, answer, why):
    clean = {"cycles": 1.0, "stalled": 0.0, "flops": 0.0, "hbm_bytes": 0.0, "slots": {}, "by_operation": []}
    clean |= {"ended": True, "stuck": 0, "unknown": {}, "compile_seconds": 0.0}
    monkeypatch.setattr(tpu_static, "check", lambda chip: None)
    monkeypatch.setattr(tpu_static, "_ask", lambda *_: clean | answer)
    with pytest.raises(EstimateError, match=why):
        estimate(jnp.add, *[jax.ShapeDtypeStruct((8, 128), jnp.float32)] * 2, chip="v5e")


@needs_libtpu
@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_a_product_is_never_above_the_peak(chip):
    x = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)
    product = estimate(jnp.matmul, x, x, chip=chip)
    assert product.flops == 2 * 4096**3
    assert 0.7 <= product.peak_share <= 1 + 1e-9


@needs_libtpu
def test_a_program_that_does_not_compile_is_told():
    too_large = jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)
    with pytest.raises(EstimateError, match=r"(?i)memory|exceed|exhausted"):
        estimate(lambda x: x @ x, too_large, chip="v5e")
