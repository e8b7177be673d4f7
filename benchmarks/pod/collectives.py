"""What the chips of a slice tell each other in a step: read from the compiled program, and how long it takes."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.pod.slices import Slice

# How often all of an array passes a link of a ring: an all-reduce is a reduce-scatter and an all-gather. In an
# all-to-all each part goes the shorter way round, a quarter of the ring on average.
_PASSES = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0, "all-to-all": 0.25}
KINDS = (*_PASSES, "collective-permute")

# Seconds from one chip to the next; not published. "How to Scale Your Model" (jax-ml.github.io/scaling-book) has about
# a microsecond.
HOP = 1e-6

_BITS = {"pred": 8, "bf16": 16}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|branch_computations)=(\{[^}]*\}|%?[\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Collective:
    """One exchange. `bytes` is all of what a chip has of it in the end, of a reduce-scatter at the start.

    `chips` take part; `times` it is done in a step.
    """

    kind: str
    bytes: int
    chips: int
    times: int

    def seconds(self, slice_: Slice) -> float:
        """Of one of it, by rings over one axis of the slice after the other, in both directions.

        A ring over an axis uses two of a chip's links. XLA may use those of the other axes at the same time, so this is
        the most that bandwidth asks for; with it comes the way of the first byte.
        """
        if self.chips == 1:
            return 0.0
        if self.kind == "collective-permute":
            return self.bytes / slice_.chip.link + HOP
        hops = slice_.hops if self.chips == slice_.chips else self.chips - 1
        moved = self.bytes * (self.chips - 1) / self.chips / (2 * slice_.chip.link)
        return _PASSES[self.kind] * moved + math.ceil(_PASSES[self.kind]) * hops * HOP


def seconds(collectives: Iterable[Collective], slice_: Slice) -> float:
    """Of all of them, one after the other, as a program for `slice_` has them: what all chips do, all of its chips do.

    The collectives are those of a larger slice, or of this one; under data parallelism both tell each other the same.
    """
    every = list(collectives)
    most = max((one.chips for one in every), default=1)
    fitted = (Collective(o.kind, o.bytes, slice_.chips if o.chips == most else o.chips, o.times) for o in every)
    return sum(one.times * one.seconds(slice_) for one in fitted)


def collectives_in(program: str, chips: int) -> list[Collective]:
    """The collectives in a compiled program's HLO text for so many chips; of a loop's body as often as it runs."""
    computations, entry = _computations(program)
    times: Counter[str] = Counter()

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in computations[name]:
            trips = _TRIPS.search(line)
            for role, called in _CALLED.findall(line):
                for inner in re.findall(r"[\w.-]+", called):
                    if inner in computations:
                        visit(inner, count * int(trips[1]) if trips and role == "body" else count)

    visit(entry, 1)
    found = []
    for name, count in times.items():
        for line in computations[name]:
            if match := _COLLECTIVE.search(line):
                group = _group(line, chips)
                size = _bytes(match[1], match[2], started=bool(match[3]))
                found.append(Collective(match[2], size * group if match[2] == "reduce-scatter" else size, group, count))
    return found


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and which of them the program is."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _bytes(result: str, kind: str, *, started: bool) -> int:
    """Of the arrays in a result's type. What is only started has its operands beside its results in it."""
    sizes = [
        math.prod(int(n) for n in dims.split(",") if n) * _bits(dtype) // 8
        for dtype, dims in re.findall(r"\b(pred|bf16|[suf]\d+\w*)\[([\d,]*)\]", result)
    ]
    if started and kind != "all-reduce":
        return max(sizes, default=0)
    return sum(sizes)


def _bits(dtype: str) -> int:
    return _BITS.get(dtype) or int(re.sub(r"^[a-z]+(\d+).*", r"\1", dtype))


def _group(line: str, chips: int) -> int:
    """How many chips take part in each group of a collective."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    return chips
