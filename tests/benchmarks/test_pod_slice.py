"""The pod-slice benchmark: names, mistakes, collectives, arithmetic, curves; and a step compiled, and one timed."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import pod_slice, tables
from benchmarks.pod import arithmetic, compiled, results
from benchmarks.pod.collectives import HOP, Collective, collectives_in, seconds
from benchmarks.pod.measured import check_here
from benchmarks.pod.scaling import Point, efficiency, strong, weak
from benchmarks.pod.slices import SLICES, slice_called
from benchmarks.pod.worker import needed
from zoo.errors import UserError
from zoo.parallel import Parallel

LINK = 50e9  # bytes/s of a v5e's link in one direction


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--slice", "v5e-7"], r"no slice is called 'v5e-7' \(the number counts chips\); there are .*v5e-256.*v5p-512"),
        (["--model", "vgg"], "no training on a slice is known of 'vgg'; there are video_gen, r2plus1d_18, convlstm"),
        (["--parallel", "jit,pmpa"], "no way to split a step is called 'pmpa'; did you mean pmap"),
        (["--per-chip-batch", "0"], "--per-chip-batch is 0; it must be 1 or more"),
        (["--batch-norm-devices", "8"], "--batch-norm-devices 8 wants --parallel shard_map or pmap"),
        (["--parallel", "pmap", "--batch-norm-devices", "3"], "3 does not divide the 256 chips; take a divisor"),
        (["--sweep"], "--sweep compiles what may not fit, for which it wants --compile-only"),
    ],
)
def test_a_mistake_is_told_before_anything_is_compiled(arguments, why):
    with pytest.raises(UserError, match=why):
        pod_slice.main(arguments)


def test_a_slice_that_is_not_here_is_told():
    with pytest.raises(UserError, match=r"v5e-256 is 256 TPU v5 lite, here are .* cpu; --compile-only estimates"):
        check_here(slice_called("v5e-256"))


def test_names_count_chips():
    for name, slice_ in SLICES.items():
        assert slice_.name == name
        assert slice_.chips == int(name.partition("-")[2])
    assert slice_called("v5e-32").topology == "v5e:4x8"
    assert slice_called("v5p-512").topology == "v5p:8x8x8"
    assert [s.name for s in slice_called("v6e-16").smaller()] == ["v6e-1", "v6e-4", "v6e-8", "v6e-16"]


PROGRAM = """HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %carry = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %part = f32[4,8]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %all-reduce.3 = f32[4,8]{1,0:T(8,128)} all-reduce(%part), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %next = (s32[], f32[4,8]{1,0}) tuple(%count, %all-reduce.3)
}

%condition (carry: (s32[], f32[4,8])) -> pred[] {
  %carry = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %less = pred[] compare(%count, %limit), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %while.1 = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"10"}}
  %all-reduce.4 = (f32[3,3]{1,0:T(4,128)}, bf16[5]{0:T(256)}) all-reduce(%p, %q), replica_groups={}, to_apply=%add
  %all-gather-start.1 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%r), replica_groups={{0,1,2,3}}
  %all-gather-done.1 = bf16[8,8]{1,0} all-gather-done(%all-gather-start.1)
  %reduce-scatter.1 = f32[2]{0} reduce-scatter(%s), replica_groups={{0,1},{2,3}}, to_apply=%add
  %collective-permute.1 = s32[6]{0} collective-permute(%t), source_target_pairs={{0,1},{1,0}}
  ROOT %copy = f32[8]{0} copy(%a)
}
"""


def test_collectives_are_read_with_bytes_groups_and_loops():
    assert set(collectives_in(PROGRAM, 4)) == {
        Collective("all-reduce", 4 * 8 * 4, 4, 10),
        Collective("all-reduce", 9 * 4 + 5 * 2, 4, 1),
        Collective("all-gather", 64 * 2, 4, 1),
        Collective("reduce-scatter", 2 * 4 * 2, 2, 1),
        Collective("collective-permute", 6 * 4, 4, 1),
    }


def test_a_ring_takes_as_long_as_its_links_and_hops():
    # Twice 15/16 of 100 MB through two links each way, and twice (4 - 1) + (4 - 1) hops.
    one, slice_ = Collective("all-reduce", 100_000_000, 16, 1), slice_called("v5e-16")
    assert one.seconds(slice_) == pytest.approx(2 * 100e6 * 15 / 16 / (2 * LINK) + 2 * 6 * HOP)
    assert Collective("all-gather", 100_000_000, 16, 1).seconds(slice_) == pytest.approx(one.seconds(slice_) / 2)
    assert Collective("all-reduce", 100_000_000, 1, 1).seconds(slice_) == 0
    # What all chips of one slice did, all chips of another do; a pair stays a pair.
    pair = Collective("all-reduce", 1000, 2, 3)
    both = [one, pair]
    there = slice_called("v5e-4")
    expected = Collective("all-reduce", 100_000_000, 4, 1).seconds(there) + 3 * pair.seconds(there)
    assert seconds(both, there) == pytest.approx(expected)


def test_curves_follow_from_a_chip_and_its_rings():
    slice_ = slice_called("v5e-16")
    collectives = [Collective("all-reduce", 10_000_000, 16, 1)]
    alike = weak(0.010, 8, collectives, slice_)
    assert [(p.chips, p.global_batch) for p in alike] == [(1, 8), (4, 32), (8, 64), (16, 128)]
    assert alike[0].step == 0.010
    assert efficiency(alike[-1], alike) == pytest.approx(0.010 / (0.010 + seconds(collectives, slice_)))
    # 16 clips in all: one chip takes 8 twice, four take 4; of 2 nothing is known.
    fewer = strong({8: 0.010, 4: 0.006, 1: 0.003}, 8, collectives, slice_)
    assert [(p.chips, round(p.step - p.collective, 6)) for p in fewer] == [(1, 0.020), (4, 0.006), (16, 0.003)]
    assert efficiency(fewer[-1], fewer) == pytest.approx(0.020 / 16 / fewer[-1].step)
    assert efficiency(Point("weak", 4, 8, 1.0, None), fewer) is None


@pytest.mark.parametrize(
    ("strides", "padding", "dilation"), [(1, "SAME", 1), (2, "SAME", 1), (2, "VALID", 2), (3, ((2, 1), (0, 3)), 1)]
)
def test_products_are_those_that_xla_counts(strides, padding, dilation):
    """Of a convolution and its gradients, whose products with zeros that stride and padding bring are none."""

    def loss(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, kernel, (strides,) * 2, padding, rhs_dilation=(dilation,) * 2, dimension_numbers=numbers
        )
        return jnp.sum(y)

    shapes = jax.ShapeDtypeStruct((2, 11, 13, 8), jnp.float32), jax.ShapeDtypeStruct((3, 3, 8, 16), jnp.float32)
    gradient = jax.value_and_grad(loss, argnums=(0, 1))
    counted = jax.jit(gradient).lower(*shapes).cost_analysis()["flops"]
    assert arithmetic.flops(gradient, *shapes) == pytest.approx(counted, rel=0.02)


def test_loops_are_counted_as_often_as_they_run():
    def chain(x, y):
        return jax.lax.scan(lambda carry, _: (carry @ y, None), x, length=7)[0]

    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert arithmetic.flops(chain, shape, shape) == 7 * 2 * 4**3


@pytest.mark.parametrize(
    "told",
    [
        "CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds "
        "available HBM (15.75G).",
        "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
    ],
)
def test_what_a_program_would_take_is_read_from_the_compilers_refusal(told):
    assert needed(f"RESOURCE_EXHAUSTED: {told}") == (20.5 * 2**30, 15.75 * 2**30)
    assert needed(f"INTERNAL: {told}") is None


def program(**changes):
    """What the worker reports of a step that fits."""
    kinds = dict.fromkeys(("argument_bytes", "output_bytes", "shared_bytes", "temporary_bytes", "code_bytes"), 1e9)
    told = {"fits": True, "peak_bytes": 3e9, **kinds, "flops": 1e12, "hbm_bytes": 1e9, "compile_seconds": 1.0}
    count = {"cycles": 15e6, "stalled": 0.0, "hbm_bytes": 1e9, "slots": {}, "by_operation": [("%fusion", 1.5e6)]}
    count |= {"ended": True, "stuck": 0, "unknown": {}}
    collectives = [{"kind": "all-reduce", "bytes": 10_000_000, "chips": 16, "times": 1}]
    return told | {"count": count, "collectives": collectives} | changes


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Puts tables into a folder of the test's own, and answers for the compiler by (slice, strategy, clips a chip)."""
    told = {}
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(pod_slice, "model_flops", lambda model: 1e11)

    def answer(model, slice_, parallel, per_chip, patience):
        return told.get((slice_.name, results.way(parallel), per_chip)) or program()

    monkeypatch.setattr(pod_slice, "compiled", answer)
    return told


def rows(name="v5e-16-pod.csv"):
    return tables.read(tables.RESULTS / name, *results.KEY)


def test_the_table_is_an_estimate_in_its_first_line_and_on_the_screen(answers, capsys):
    pod_slice.main(["--model", "convlstm", "--slice", "v5e-16", "--compile-only", "--parallel", "jit,pmap"])
    first = (tables.RESULTS / "v5e-16-pod.csv").read_text().partition("\n")[0]
    assert first.startswith("# static estimate, not a measurement")
    assert capsys.readouterr().out.startswith(first)
    assert (tables.RESULTS / "v5e-16-pod.png").stat().st_size > 1000
    whole = rows()["convlstm", "jit", "weak", "16", "8"]
    # 15e6 cycles at 1.5 GHz; 10 MB through two links, there and back, and 12 hops.
    assert float(whole["own_ms"]) == pytest.approx(10)
    assert float(whole["collective_ms"]) == pytest.approx(2 * 10e6 * 15 / 16 / (2 * LINK) * 1e3 + 0.012, abs=1e-3)
    assert float(whole["mfu"]) == pytest.approx(8e11 / 0.0102 / 197e12, rel=0.01)
    assert whole["fits"] == "yes"
    assert whole["collectives"].startswith("all-reduce: 1 of 10.00 MB in all")
    assert {key[1] for key in rows()} == {"jit", "pmap"}
    assert {key[3] for key in rows() if key[2] == "strong"} == {"1", "4", "8", "16"}


def test_neighbours_tell_each_other_alone(answers):
    gradients = {"kind": "all-reduce", "bytes": 0, "chips": 16, "times": 1}
    answers["v5e-16", "jit", 8] = program(collectives=[gradients | {"times": 11}])
    norms = gradients | {"chips": 8, "times": 10}
    answers["v5e-16", "shard_map, batch norm over 8", 8] = program(collectives=[gradients, norms])
    told = ["--model", "convlstm", "--slice", "v5e-16", "--compile-only"]
    pod_slice.main([*told, "--parallel", "shard_map", "--batch-norm-devices", "8"])
    pod_slice.main(told)
    found = {key[1]: {} for key in rows()}
    for key, row in rows().items():
        if key[2] == "weak":
            found[key[1]][int(key[3])] = float(row["collective_ms"])
    # A microsecond a hop, there and back, of 2x2, 2x4 and 4x4 chips; a ring of 8 has 7 hops.
    assert found["jit"] == {1: 0.0, 4: 0.044, 8: 0.088, 16: 0.132}
    assert found["shard_map, batch norm over 8"] == {1: 0.0, 4: 0.044, 8: 0.088, 16: 0.152}


def test_a_chip_that_the_clock_cannot_judge_has_memory_and_collectives(answers, capsys):
    pod_slice.main(["--model", "convlstm", "--slice", "v4-16", "--compile-only"])
    assert "v4-16: memory and collectives only; its programs spread over two cores" in capsys.readouterr().err
    (whole,) = rows("v4-16-pod.csv").values()
    assert whole["step_ms"] == whole["mfu"] == ""
    assert whole["temporary_gb"] == "1.000"
    assert float(whole["collective_ms"]) > 0


def test_the_sweep_finds_the_most_clips_that_fit(answers):
    no = {"fits": False, "peak_bytes": 20e9, "limit_bytes": 16e9, "compile_seconds": 1.0}
    answers |= {("v5e-16", "jit", clips): no for clips in (21, 22, 23, 24, 26, 28, 32)}
    pod_slice.main(["--model", "convlstm", "--slice", "v5e-16", "--compile-only", "--sweep"])
    fits = {int(key[4]): row["fits"] for key, row in rows().items() if key[2] == "memory"}
    assert fits == {8: "yes", 16: "yes", 32: "no", 24: "no", 20: "yes", 22: "no"}


def test_what_does_not_fit_is_a_row(answers):
    no = {"fits": False, "peak_bytes": 20e9, "limit_bytes": 16e9, "compile_seconds": 1.0}
    answers["v5e-16", "jit", 8] = no
    pod_slice.main(["--model", "convlstm", "--slice", "v5e-16", "--compile-only"])
    (whole,) = rows().values()
    assert (whole["fits"], whole["peak_gb"], whole["step_ms"]) == ("no", "20.000", "")


def test_a_compiler_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: name)
    monkeypatch.setattr(compiled.subprocess, "Popen", slow(compiled.subprocess.Popen, "exec sleep 60"))
    with pytest.raises(compiled.LateError, match=r"not compiled within 0\.2 seconds; give more with --patience"):
        compiled.compiled("convlstm", slice_called("v5e-4"), Parallel(), 8, patience=0.2)


def test_a_compiler_that_dies_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: name)
    monkeypatch.setattr(compiled.subprocess, "Popen", slow(compiled.subprocess.Popen, "exit 1"))
    with pytest.raises(UserError, match="the compiler ended its process"):
        compiled.compiled("convlstm", slice_called("v5e-4"), Parallel(), 8, patience=60)


def slow(start, script):
    return lambda command, **options: start(["/bin/sh", "-c", script], **options)


def told_by(*arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "ZOO_COMPILATION_CACHE": "off"}
    command = [sys.executable, "-m", "tests.pod_tiny", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler comes with `uv sync --extra tpu`"
)
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
def test_chips_tell_each_other_their_gradients_and_no_more(strategy):
    model, *_, told = map(json.loads, told_by("compile", "v5e-4", strategy).splitlines())
    assert "report" in told, told
    collectives = [Collective(**one) for one in told["report"]["collectives"]]
    assert {(one.kind, one.chips) for one in collectives} == {("all-reduce", 4)}
    # Beside them the step's figures, and a few sums of activations under jit.
    figures = sum(one.bytes * one.times for one in collectives) - 4 * model["parameters"]
    assert 0 <= figures <= 512


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
def test_chips_that_are_here_are_timed(strategy, tmp_path):
    printed = told_by("run", str(tmp_path), strategy)
    assert printed.startswith("# measured on v5e-8: 8 cpu, 1 processes")
    table = tables.read(tmp_path / "v5e-8-pod-measured.csv", *results.KEY)
    assert [key[3] for key in table if key[2] == "weak"] == ["1", "2", "4", "8"]
    assert [key[3] for key in table if key[2] == "strong"] == ["4", "8"]
    for (_, _, scaling, chips, clips), row in table.items():
        assert int(row["global_batch"]) == int(chips) * int(clips)
        assert float(row["step_ms"]) > 0
        assert float(row["first_step_seconds"]) > 0
        assert (scaling == "strong") == (row["efficiency"] == "")
    assert (tmp_path / "v5e-8-pod-measured.png").exists()
