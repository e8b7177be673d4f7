"""Kernels on many devices: a sharded batch stays where it is, and map, scan, remat and gradients pass through."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed_by(module: str) -> list[str]:
    """The lines of a process of its own, since the number of devices is told to JAX once."""
    run = subprocess.run(
        [sys.executable, "-m", f"tests.kernels.{module}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.splitlines()


def test_kernels_are_split_and_mapped_without_gathering_the_batch():
    by_sharding = ["sharded by jit", "told over which axes", "sharded by type", "sharded by hand"]
    ways = [*by_sharding, "pmap", "mapped", "scanned and recomputed"]
    assert printed_by("sharded") == ways


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the compiler comes with `uv sync --extra tpu`")
def test_on_several_tpus_a_kernel_is_split_where_it_is_told_how_and_lax_serves_elsewhere():
    assert json.loads(printed_by("on_tpus")[-1]) == {
        "told": {"kernels": True, "gathers": False},
        "not told": {"kernels": False, "gathers": False},
    }
