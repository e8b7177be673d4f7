"""Stands in for both processes of `benchmarks.models`: answers at once, with times that are known.

What shall be amiss is in the environment: FAKE_OUTPUT and FAKE_UPDATE are added to what PyTorch gives, FAKE_COMPILER
is what a compiled program fails with. Everything asked goes to the file FAKE_ASKED.
"""

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "torch_peer"))
from serving import serve

OURS = sys.argv[1:] == ["ours"]
TAKEN = {"ours": 2.0, "eager contiguous": 8.0, "eager channels last": 7.0, "compiled contiguous": 5.0}


def asked(do, **arguments):
    with open(os.environ["FAKE_ASKED"], "a") as file:
        print("ours" if OURS else "theirs", do, arguments.get("form", ""), file=file)
    return globals()[f"_{do}"](**arguments)


def _hello():
    return {"versions": {"jax": "1.0"} if OURS else {"torch": os.environ.get("FAKE_TORCH", "2.0")}}


def _shapes(model):
    return {"kernel": [3, 4]}


def _load(form, training, weights, result, rate, **_):
    if form.startswith("compiled") and "FAKE_COMPILER" in os.environ:
        raise RuntimeError(os.environ["FAKE_COMPILER"] + "\nand more")
    with np.load(weights) as arrays:
        kernel = arrays["kernel"] * (1 - rate)
    if not OURS:
        kernel = kernel + float(os.environ.get("FAKE_UPDATE", 0))
    output = np.linspace(-2, 2, 5) + (0 if OURS else float(os.environ.get("FAKE_OUTPUT", 0)))
    np.savez(result, loss=output[-1], output=output, kernel=kernel)
    return {"compile_seconds": 3.0, "flops": 6e9}


def _updated(model, weights, result):
    with np.load(weights) as arrays:
        np.savez(result, kernel=arrays["kernel"])
    return {}


def _turn(form, seconds):
    return {"milliseconds": [1.5, TAKEN.get(form, 4.0), 9.0]}


def _peak(size):
    return {"gflops": 3000.0 if OURS else 2000.0}


def command(do):
    return lambda **arguments: asked(do, **arguments)


if __name__ == "__main__":
    serve({do: command(do) for do in ("hello", "shapes", "load", "updated", "turn", "peak")})
