"""One side of a pair of processes that are timed in turn: a JSON object a line comes in and one goes out.

Both sides use it, and PyTorch's runs under a Python of its own: nothing but the standard library, nothing new in it.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def serve(commands: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answers `{"do": NAME, ...}` by what `commands[NAME](...)` gives, or by `{"error": ..., "trace": ...}`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = commands[asked.pop("do")](**asked)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}", "trace": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def first_and_next(call: Callable[[], Any]) -> tuple[Any, float]:
    """What the first call gives, and how many seconds longer than the next it takes: those of compiling."""
    start = time.perf_counter()
    first = call()
    between = time.perf_counter()
    call()
    return first, max(0.0, (between - start) - (time.perf_counter() - between))


def turn(call: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Milliseconds of each of as many calls as fit into that time, at least one."""
    taken = []
    while not taken or sum(taken) < seconds * 1e3:
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return {"milliseconds": taken}


def peak(product: Callable[[], Any], size: int) -> dict[str, Any]:
    """GFLOP/s of the fastest of some square matrix products."""
    product()
    return {"gflops": 2e-6 * size**3 / min(turn(product, 1.0)["milliseconds"])}
