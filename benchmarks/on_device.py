"""Times implementations on the CPU or GPU of this machine, and enters what wins in `kernels/tuned/<platform>.json`.

The calls are those of the zoo's models. Each candidate is first checked against lax in float32; those not far behind
after one run then take turns. Every time is kept in `benchmarks/results/<device>-kernels.csv`, so a stopped run goes on
where it was, and the choices follow from the table: for each call the fastest, and for calls that no model makes what
was fastest for their kind (`dispatch.kind`), or for their number of axes, all calls of the kind taken together.
"""

import datetime
import fnmatch
import math
import os
import platform as host
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.progress import track

from benchmarks import tables
from benchmarks.model_calls import ModelCall, model_calls
from zoo.errors import UserError
from zoo.kernels import dispatch
from zoo.kernels.conv import rewritten as conv_rewritten
from zoo.kernels.conv.gpu import TILES
from zoo.kernels.depthwise import rewritten as depthwise_rewritten
from zoo.kernels.pool import rewritten as pool_rewritten

# Clips at once: one is what people try on a CPU.
BATCH = {"cpu": 1, "cuda": 8}
DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # of the largest value
ROUNDS = 7
CALLS = {"cpu": 1, "cuda": 20}  # in one program; on a GPU Python's share of one call would be large
HOPELESS = 1.5  # times the fastest first run: such candidates take no turns
SMALL = (
    1000  # microseconds of plain lax; a rule leaves a call of less work than that to it: little to win, much to compile
)
MARGIN = 1.03  # who wins by less may lose on another day
FIELDS = ("operation", "key", "kind", "models", "candidate", "microseconds", "spread", "compile seconds", "notes")
FORMS = {**conv_rewritten.FORMS, **depthwise_rewritten.FORMS, **pool_rewritten.FORMS}

# Of these only the parts are measured, which then choose for themselves.
ALWAYS = {"conv_lstm of 0 axes": "rewritten", "conv_lstm_stack of 0 axes": "rewritten"}

type Table = Mapping[tuple[str, ...], Mapping[str, str]]


def candidates(platform: str, call: ModelCall) -> list[str]:
    """What is tried for a call, by name: `xla`, `rewritten form=im2col images=4`."""
    named: list[tuple[str, Mapping[str, Any]]] = [("xla", {})]
    named += [("rewritten", form) for form in FORMS.get(call.operation, ({},))]
    if platform == "cuda" and "pallas_gpu" in dispatch.OPERATIONS[call.operation].modules:
        blocks = [{"pixels": p, "features": f} for p, f in TILES if call.operands[-1].shape[-1] % f == 0]
        if call.operation != "conv":
            blocks = [{"columns": columns} for columns in (4, 8, 16, 32, 64)]
        named += [("pallas_gpu", each) for each in ({}, *blocks)]
    return [" ".join([name, *(f"{k}={v}" for k, v in blocks.items())]) for name, blocks in named]


def parsed(candidate: str) -> tuple[str, dict[str, Any]]:
    """A candidate's implementation and its arguments."""
    name, *words = candidate.split()
    pairs = (word.split("=") for word in words)
    return name, {key: int(value) if value.lstrip("-").isdigit() else value for key, value in pairs}


def tune(platform: str, only: Sequence[str], *, again: bool) -> None:
    """Measures what is missing of all calls whose `models operation key` match one of `only`, then chooses.

    Raises:
      UserError: JAX has no such device here, or no call matches.
    """
    try:
        device = jax.devices("gpu" if platform == "cuda" else "cpu")[0]
    except RuntimeError as error:
        raise UserError(f"no GPU that JAX can use: {error}") from error
    name = cpu_name() if platform == "cpu" else device.device_kind
    file = tables.RESULTS / f"{tables.slug(name)}-kernels.csv"
    every = model_calls(DTYPE[platform], BATCH[platform])
    wanted = [call for call in every if any(fnmatch.fnmatch(named(call), pattern) for pattern in only)]
    if not wanted:
        raise UserError(f"no call of a model matches {','.join(only)!r}; one is named {named(every[0])!r}")
    by = f"medians of {ROUNDS} rounds, {DTYPE[platform]}, batch {BATCH[platform]}, on {name}"
    by += f" ({os.cpu_count()} cores)" if platform == "cpu" else ""
    by += f"; jax {jax.__version__}; {datetime.date.today().isoformat()}"
    table = tables.read(file, "operation", "key", "candidate")
    with jax.default_device(device):
        for call in track(wanted, description=name, console=Console(stderr=True)):
            keys = {each: (call.operation, call.key, each) for each in candidates(platform, call)}
            missing = [each for each, key in keys.items() if again or key not in table]
            if not missing:
                continue
            known = {"operation": call.operation, "key": call.key, "kind": call.kind, "models": " ".join(call.models)}
            for candidate, cells in measured(call, missing, CALLS[platform]).items():
                table[keys[candidate]] = {**known, "candidate": candidate, **cells}
            tables.write(file, by, FIELDS, (table[key] for key in sorted(table)))
    chosen = choices(table.values())
    tables.write_choices(platform, name, by, chosen)
    print(f"{len(chosen)} choices for {name}, from {file.name}")


def cpu_name() -> str:
    """As the system names the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else host.processor() or host.machine()


def named(call: ModelCall) -> str:
    return f"{' '.join(call.models)} {call.operation} {call.key}"


def repeated(function: Callable[..., jax.Array], times: int) -> Callable[..., jax.Array]:
    """A program that calls a function several times in turn.

    One value of each result goes into the next call's first operand, or the compiler would see that all calls are the
    same and make them one. The barriers keep it from computing that value alone, and from moving its insertion into
    the function.
    """

    def run(x: jax.Array, *others: jax.Array) -> jax.Array:
        out = function(x, *others)
        for _ in range(times - 1):
            out = lax.optimization_barrier(out)
            x = lax.optimization_barrier(x.at[(0,) * x.ndim].set(out[(0,) * out.ndim]))
            out = function(x, *others)
        return out

    return jax.jit(run)


def measured(call: ModelCall, names: Sequence[str], calls: int) -> dict[str, dict[str, str]]:
    """The table's cells for each candidate: its median time, or why it has none.

    Raises:
      ArithmeticError: a candidate is wrong.
    """
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.normal(size=operand.shape), operand.dtype) for operand in call.operands]
    with jax.default_matmul_precision("highest"):
        plain = partial(dispatch.implementation(call.operation, "xla"), **call.options)
        expected = np.asarray(jax.jit(plain)(*(a.astype(jnp.float32) for a in arrays)))
    cells: dict[str, dict[str, str]] = {}
    programs, first = {}, {}
    for candidate in names:
        name, blocks = parsed(candidate)
        try:
            function = partial(dispatch.implementation(call.operation, name), **call.options, **blocks)
            jax.eval_shape(function, *arrays)
        except dispatch.Refused as reason:
            cells[candidate] = {"notes": str(reason)}
            continue
        start = time.perf_counter()
        program = repeated(function, calls).lower(*arrays).compile()
        compiled = time.perf_counter() - start
        out = np.asarray(jax.jit(function)(*arrays) if calls > 1 else program(*arrays), np.float32)
        worst = np.abs(out - expected).max() / np.abs(expected).max()
        if not worst <= TOLERANCE[str(call.operands[0].dtype)]:
            raise ArithmeticError(f"{named(call)} by {candidate} is off by {worst:.2g} of its largest value")
        programs[candidate], first[candidate] = program, once(program, arrays, calls)
        cells[candidate] = {"compile seconds": f"{compiled:.1f}", "microseconds": f"{first[candidate]:.1f}"}
    near = [candidate for candidate in programs if first[candidate] <= HOPELESS * min(first.values())]
    taken = {candidate: [] for candidate in near}
    for _ in range(ROUNDS):
        for candidate in near:
            taken[candidate].append(once(programs[candidate], arrays, calls))
    for candidate, values in taken.items():
        quarter, median, three = statistics.quantiles(values, n=4)
        cells[candidate] |= {"microseconds": f"{median:.1f}", "spread": f"{(three - quarter) / median:.2f}"}
    for candidate in programs.keys() - set(near):
        cells[candidate]["notes"] = "one run"
    return cells


def once(program: Callable[..., jax.Array], arrays: Sequence[jax.Array], calls: int) -> float:
    """Microseconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(program(*arrays))
    return (time.perf_counter() - start) / calls * 1e6


def choices(rows: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """What dispatch is to take: rules for kinds and numbers of axes, and calls for which the rule is not the best."""
    times: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        if row.get("microseconds"):
            of_call = times.setdefault((row["operation"], row["kind"], row["key"]), {})
            of_call[row["candidate"]] = float(row["microseconds"])
    groups: dict[str, list[dict[str, float]]] = {}
    rates: dict[str, list[float]] = {}
    for (operation, kind, key), of_call in times.items():
        for name in (f"{operation} of {kind}", f"{operation} of {_axes(kind)} axes"):
            groups.setdefault(name, []).append(of_call)
            rates.setdefault(name, []).append(dispatch.work(key) / of_call["xla"])
    rules = {name: _best_of_all(group) for name, group in groups.items()}
    chosen = {name: _entry(best) for name, best in ALWAYS.items()}
    for name, best in rules.items():
        if best != "xla":
            chosen[name] = {**_entry(best), "from_work": round(statistics.geometric_mean(rates[name]) * SMALL)}
        elif " axes" not in name:
            chosen[name] = _entry(best)
    for (operation, kind, key), of_call in times.items():
        best = min(of_call, key=of_call.__getitem__)
        best = best if of_call["xla"] >= MARGIN * of_call[best] else "xla"
        by_rule = of_call.get(rules[f"{operation} of {kind}"], math.inf)
        if by_rule > MARGIN * of_call[best]:
            chosen[f"{operation} {key}"] = _entry(best)
    return dict(sorted(chosen.items()))


def _axes(kind: str) -> int:
    return len(kind.split()[0].split("x"))


def _best_of_all(group: Sequence[Mapping[str, float]]) -> str:
    """The candidate that serves all calls of a group, with the least product of times; lax if it wins by chance."""
    serving = set.intersection(*(set(times) for times in group))
    cost = {candidate: sum(math.log(times[candidate]) for times in group) for candidate in sorted(serving)}
    best = min(cost, key=cost.__getitem__)
    return best if cost["xla"] - cost[best] >= len(group) * math.log(MARGIN) else "xla"


def _entry(candidate: str) -> dict[str, Any]:
    name, blocks = parsed(candidate)
    return {"implementation": name} | ({"blocks": blocks} if blocks else {})
