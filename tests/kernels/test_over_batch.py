"""Kernels on many devices: a sharded batch stays where it is, and map, scan, remat and gradients pass through."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kernels_are_split_and_mapped_without_gathering_the_batch():
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.sharded"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    ways = ["sharded by jit", "sharded by type", "sharded by hand", "pmap", "mapped", "scanned and recomputed"]
    assert run.stdout.splitlines() == ways
