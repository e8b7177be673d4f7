"""Runs the scalar side of a decoded program and counts the cycles of every bundle that is reached.

A bundle takes a cycle; a branch takes effect four bundles later. A DMA with HBM at one end waits for those before it,
moves at HBM's bandwidth and arrives a latency later; a wait lasts until what it waits for has arrived. Not modelled:
stalls beyond the static schedule, and that HBM is slower for short strides.
"""

import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.tpu_static.chips import Chip
from benchmarks.tpu_static.program import MASK, SLOTS, Action, Bundle, Registers, signed

DELAY_SLOTS = 4
GRANULE = 32  # bytes of one unit of a DMA's length
DMA_LATENCY = 700.0  # cycles from the start of a transfer to its first byte: about half a microsecond, assumed
LOCAL_LATENCY = 200.0  # the same between two memories on the chip, at four times HBM's bandwidth; assumed
MAX_BUNDLES = 200_000_000


@dataclass
class Count:
    """What a run came to. `stuck` counts waits for something that nobody had begun; then the count means nothing."""

    cycles: float
    bundles: int
    stalled: float
    hbm_bytes: float
    slots: dict[str, int]
    by_operation: list[float]
    ended: bool
    stuck: int


class Machine:
    """One TensorCore, from the first bundle of a program's own code to `end`."""

    def __init__(self, bundles: Sequence[Bundle], chip: Chip, operations: Sequence[int]):
        """operations: the first bundle of each of the HLO operations, in rising order."""
        self.bundles, self.operations = bundles, operations
        self.bytes_per_cycle = chip.bandwidth / chip.clock
        self.registers = Registers()
        self.flags: dict[int, float] = defaultdict(float)
        self.transfers: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.quotients: deque[int] = deque()
        self.time = self.stalled = self.hbm_bytes = self.hbm_free = 0.0
        self.stuck = 0
        # From each bundle the next one that does something on the scalar side; those before it just take their cycle.
        self.next_acting = [0] * len(bundles)
        following = len(bundles)
        for i in reversed(range(len(bundles))):
            if bundles[i].actions:
                following = i
            self.next_acting[i] = following

    def run(self, start: int, end: int) -> Count:
        visits: Counter[tuple[int, int]] = Counter()
        by_operation: dict[int, float] = defaultdict(float)
        at, count = start, 0
        target, slots_left = None, 0
        while at < len(self.bundles) and at != end and count < MAX_BUNDLES:
            begun = self.time
            stop = min(self.next_acting[at], end if at < end else len(self.bundles))
            if target is not None:
                stop = min(stop, at + slots_left)
            jump = None
            if stop > at:
                self.time += stop - at
            else:
                stop = at + 1
                jump = self._act(self.bundles[at].actions, at)
            visits[at, stop] += 1
            count += stop - at
            by_operation[bisect.bisect_right(self.operations, at) - 1] += self.time - begun
            passed, at = stop - at, stop
            if target is not None:
                slots_left -= passed
                if slots_left == 0:
                    at, target = target, None
            if jump is not None:
                target, slots_left = jump, DELAY_SLOTS
        return Count(
            cycles=self.time,
            bundles=count,
            stalled=self.stalled,
            hbm_bytes=self.hbm_bytes,
            slots=self._slots(visits),
            by_operation=[by_operation.get(i, 0.0) for i in range(len(self.operations))],
            ended=at == end,
            stuck=self.stuck,
        )

    def _slots(self, visits: Counter[tuple[int, int]]) -> dict[str, int]:
        sums: dict[str, int] = dict.fromkeys(SLOTS, 0)
        running = [dict(sums)]
        for bundle in self.bundles:
            running.append({slot: running[-1][slot] + bundle.slots[slot] for slot in SLOTS})
        for (first, last), times in visits.items():
            for slot in SLOTS:
                sums[slot] += times * (running[last][slot] - running[first][slot])
        return sums

    def _act(self, actions: Sequence[Action], at: int) -> int | None:
        """One bundle: all its reads come before any of its writes. Returns where it jumps to, if it does."""
        self.time += 1
        registers, jump, writes = self.registers, None, []
        for action in actions:
            if action.predicate is not None and not action.predicate(registers):
                continue
            kind, target, value = action.kind, action.target, action.value
            if kind == "set":
                writes.append((registers.scalars, target, value(registers)))
            elif kind == "set_predicate":
                writes.append((registers.predicates, target, value(registers)))
            elif kind == "store":
                writes.append((registers.memory, target(registers) & 0xFFFFF, value(registers)))
            elif kind == "branch":
                jump = value
            elif kind == "branch_indirect":
                jump = value(registers)
            elif kind == "call":
                jump = value
                writes.append((registers.scalars, target, at + DELAY_SLOTS + 1))
            elif kind == "divide":
                self._divide(target, *(v(registers) & MASK for v in value))
            elif kind == "pop_division":
                writes.append((registers.scalars, target, self.quotients.popleft() if self.quotients else 0))
            elif kind == "delay":
                self.time += value(registers)
            elif kind == "dma":
                self._transfer(target, value)
            elif kind == "wait":
                self._wait(target(registers), value(registers))
            elif kind == "flag_add":
                self.flags[target(registers)] += signed(value(registers))
            elif kind == "flag_set" and value is not None and value(registers) == 0:
                self.flags[target(registers)] = 0
        for where, name, what in writes:
            where[name] = what
        return jump

    def _divide(self, operation: str, dividend: int, divisor: int) -> None:
        divisor = divisor or 1
        if "rem" not in operation or "divrem" in operation:
            self.quotients.append(dividend // divisor)
        if "rem" in operation:
            self.quotients.append(dividend % divisor)

    def _transfer(self, flag, value) -> None:
        length, with_hbm = value
        granules = length(self.registers) & MASK
        size = granules * GRANULE
        if with_hbm:
            self.hbm_free = max(self.time, self.hbm_free) + size / self.bytes_per_cycle
            arrives = self.hbm_free + DMA_LATENCY
            self.hbm_bytes += size
        else:
            arrives = self.time + LOCAL_LATENCY + size / (4 * self.bytes_per_cycle)
        if flag is not None:
            self.transfers[flag(self.registers)].append((arrives, granules))

    def _wait(self, flag: int, needed: int) -> None:
        pending = self.transfers[flag]
        while self.flags[flag] < needed and pending:
            pending.sort()
            arrives, granules = pending.pop(0)
            self.flags[flag] += granules
            if arrives > self.time:
                self.stalled += arrives - self.time
                self.time = arrives
        if self.flags[flag] < needed:
            self.stuck += 1
            self.flags[flag] = needed
