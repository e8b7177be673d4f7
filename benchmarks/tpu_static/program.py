"""Reads the compiler's final program for a TensorCore: one bundle of instructions a cycle.

Only the scalar side has to be understood, since it decides which bundles run and how often: arithmetic on scalar
registers, predicates, branches, calls, scalar memory, DMAs, and the flags that they are waited for by. Vector
instructions are counted by the slot that they take.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

MASK = 0xFFFFFFFF
SLOTS = ("matmul", "matrix_load", "vector_load", "vector_store", "vector_alu", "cross_lane", "transcendental")

type Value = Callable[["Registers"], int]


@dataclass
class Registers:
    """The scalar side's state: registers, predicates and scalar memory, all zero at first.

    `unknown` counts the operands that were asked for and are none of these: then what is run means nothing.
    """

    scalars: dict[str, int] = field(default_factory=dict)
    predicates: dict[str, bool] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def note_unknown(self, operand: str) -> int:
        self.unknown[f"operand {operand}"] += 1
        return 0


@dataclass(frozen=True)
class Action:
    """One scalar instruction: what it does (`kind`), where to, with which values, and under which predicate."""

    kind: str
    target: Any = None
    value: Any = None
    predicate: Value | None = None


@dataclass
class Bundle:
    """The instructions of one cycle: scalar actions in order, and how many take each vector slot."""

    actions: list[Action] = field(default_factory=list)
    slots: Counter[str] = field(default_factory=Counter)


def signed(value: int) -> int:
    value &= MASK
    return value - (1 << 32) if value & 0x80000000 else value


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "sadd.s32": lambda a, b: a + b,
    "ssub.s32": lambda a, b: a - b,
    "smul.u32": lambda a, b: a * b,
    "smulhi.u32": lambda a, b: ((a & MASK) * (b & MASK)) >> 32,
    "sand.u32": lambda a, b: a & b,
    "sor.u32": lambda a, b: a | b,
    "sxor.u32": lambda a, b: a ^ b,
    "sshll.u32": lambda a, b: a << (b & 31) if b < 32 else 0,
    "sshrl.u32": lambda a, b: (a & MASK) >> (b & 63),
    "sshra.s32": lambda a, b: signed(a) >> min(b & 63, 31),
    "smax.s32": lambda a, b: max(signed(a), signed(b)),
    "smin.s32": lambda a, b: min(signed(a), signed(b)),
    "smax.u32": lambda a, b: max(a & MASK, b & MASK),
    "smin.u32": lambda a, b: min(a & MASK, b & MASK),
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "slt": lambda a, b: a < b,
    "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b,
    "sge": lambda a, b: a >= b,
    "seq": lambda a, b: a == b,
    "sne": lambda a, b: a != b,
}
_LOGIC: dict[str, Callable[[Any, Any], bool]] = {
    "por": lambda a, b: a or b,
    "pand": lambda a, b: a and b,
    "pnand": lambda a, b: not (a and b),
    "pxor": lambda a, b: a != b,
    "pnor": lambda a, b: not (a or b),
}
_WAITS = {"vwait.ge", "vwait.eq", "vwait.gt", "vwait.ne", "vwait.done", "vwait.lt", "swait.ge"}
# What has no effect on which bundles run: synchronisation that takes its one cycle, and floating-point scalars.
_WITHOUT_EFFECT = re.compile(r"^(shalt|sfence|ssettag|sc\.u32|s\w+(\.\w+)?\.(f32|bf16))$")
_CROSS_LANE = re.compile(r"rot|perm|xlu|transpose|xlane|bcast|max\.x|add\.x|sublane")
_TRANSCENDENTAL = re.compile(r"tanh|rcp|pow2|log2|rsqrt|exp|sigm|erf|sin|cos")
_IMMEDIATE = re.compile(r"^\$([-+]?(?:0x[0-9a-f]+|\d+))$")
_FLOAT = re.compile(r"^\$([-+]?\d+\.\d*(?:e[-+]?\d+)?)$")


class Decoder:
    """Turns lines of assembly into bundles, and counts the scalar instructions that it does not know."""

    def __init__(self) -> None:
        self.unknown: Counter[str] = Counter()

    def decode(self, lines: Iterable[str]) -> list[Bundle]:
        """One bundle for each line of the form `12:0x00c : { instruction ;; instruction }`."""
        found = (re.match(r"^\d+:0x[0-9a-f]+\s*: \{(.*)\}", line) for line in lines)
        return [self._bundle(line.group(1)) for line in found if line]

    def _bundle(self, text: str) -> Bundle:
        bundle = Bundle()
        text = re.sub(r"/\*.*?\*/", "", text)
        for instruction in filter(None, map(str.strip, text.split(";"))):
            if " = " not in instruction:
                continue
            target, right = instruction.split(" = ", 1)
            operation, _, arguments = right.partition(" ")
            predicate = None
            if guarded := re.match(r"^@(!?p\d+)\s*(.*)$", arguments):
                predicate, arguments = _value(guarded.group(1)), guarded.group(2)
            if slot := _slot(operation, target):
                bundle.slots[slot] += 1
            elif action := self._scalar(operation, target, arguments, predicate):
                bundle.actions.append(action)
            elif operation.startswith("v"):
                bundle.slots[_vector_slot(operation, target)] += 1
        return bundle

    def _scalar(self, operation: str, target: str, text: str, predicate: Value | None) -> Action | None:
        """The scalar action of an instruction, or None where it has none."""
        arguments = [a.strip() for a in re.split(r",\s*(?![^\[]*\])", text)] if text else []

        def act(kind: str, target: Any = None, value: Any = None) -> Action:
            return Action(kind, target, value, predicate)

        if operation.startswith(("sdiv", "srem")):
            return act("divide", operation, (_value(arguments[0]), _value(arguments[1])))
        if operation == "spop" and re.match(r"^s\d+$", target):
            return act("pop_division", target) if "drf" in text else act("set", target, lambda registers: 0)
        if operation == "vdelay":
            return act("delay", None, _value(arguments[0]))
        if operation in _WAITS:
            if operation != "vwait.ge":
                return None
            return act("wait", _address(_flags(text)[0]), _value(arguments[-1]))
        if target.startswith("[sflag:") and operation.startswith(("vsyncadd", "vsyncpa", "vsyncset")):
            if "add" in operation:
                return act("flag_add", _address(target[7:-1]), _value(arguments[0]))
            # What is not understood does not clear the flag.
            return act("flag_set", _address(target[7:-1]), _understood(arguments[0]) if arguments else None)
        if operation.startswith("dma."):
            return act("dma", *_transfer(target, text))
        if target == "(pc)":
            return act(*_jump(operation, text, arguments))
        if operation.startswith("scall."):
            return act("call", target, int(_jump_target(operation, text), 16))
        if re.match(r"^s\d+$", target):
            return self._register(operation, target, text, arguments, act)
        if re.match(r"^p\d+$", target):
            return self._predicate(operation, target, arguments, act)
        if target.startswith("[smem:"):
            value = _understood(arguments[-1])
            return act("store", _address(target[6:-1]), value) if value else None
        self._note_unknown(operation)
        return None

    def _note_unknown(self, operation: str) -> None:
        if operation.startswith(("s", "p")) and not _WITHOUT_EFFECT.match(operation):
            self.unknown[operation] += 1

    def _register(self, operation, target, text, arguments, act) -> Action | None:
        if operation in ("simm.u32", "simm.s32", "smov.u32", "smov.s32"):
            return act("set", target, _value(arguments[0]))
        if operation in _ARITHMETIC:
            compute, a, b = _ARITHMETIC[operation], _value(arguments[0]), _value(arguments[1])
            return act("set", target, lambda registers: signed(compute(a(registers), b(registers))))
        if operation == "sld":
            address = _address(_first(r"\[smem:([^\]]+)\]", text))
            return act("set", target, lambda registers: registers.memory.get(address(registers) & 0xFFFFF, 0))
        if operation.startswith("ssel"):
            chosen, yes, no = (_value(a) for a in arguments[:3])
            return act("set", target, lambda registers: yes(registers) if chosen(registers) else no(registers))
        if operation.startswith("sclz"):
            value = _value(arguments[0])
            return act("set", target, lambda registers: 32 - (value(registers) & MASK).bit_length())
        self._note_unknown(operation)
        return None

    def _predicate(self, operation, target, arguments, act) -> Action | None:
        base, _, kind = operation.partition(".")
        if base in _COMPARISONS:
            compare, a, b = _COMPARISONS[base], _value(arguments[0]), _value(arguments[1])
            as_is = (lambda value: value & MASK) if kind.startswith("u") else signed
            return act("set_predicate", target, lambda registers: compare(as_is(a(registers)), as_is(b(registers))))
        if base in _LOGIC:
            combine, a, b = _LOGIC[base], _value(arguments[0]), _value(arguments[1])
            return act("set_predicate", target, lambda registers: combine(a(registers), b(registers)))
        if base in ("pmov", "pneg"):
            value, negate = _value(arguments[0]), base == "pneg"
            return act("set_predicate", target, lambda registers: value(registers) != negate)
        self._note_unknown(operation)
        return None


def _slot(operation: str, target: str) -> str | None:
    if operation.startswith("vmatmul."):
        return "matmul"
    if operation.startswith("vmatpush") and "prep" not in operation:
        return "matrix_load"
    if operation.startswith("vld"):
        return "vector_load"
    if operation.startswith("vst") and target.startswith("["):
        return "vector_store"
    return None


def _vector_slot(operation: str, target: str) -> str:
    if _CROSS_LANE.search(operation):
        return "cross_lane"
    return "transcendental" if "eup" in target or _TRANSCENDENTAL.search(operation) else "vector_alu"


def _value(text: str) -> Any:
    """What an operand is worth when it is reached; one that is not understood is noted then, and worth nothing."""
    return _understood(text) or (lambda registers: registers.note_unknown(text.strip()))


def _understood(text: str) -> Any:
    """What an immediate, a register, a predicate, or a sum of them is worth when it is reached; None for all else."""
    text = text.strip()
    if immediate := _IMMEDIATE.match(text):
        number = int(immediate.group(1), 0)
        return lambda registers: number
    if immediate := _FLOAT.match(text):
        (bits,) = struct.unpack("<i", struct.pack("<f", float(immediate.group(1))))
        return lambda registers: bits
    if re.match(r"^s\d+$", text):
        return lambda registers: registers.scalars.get(text, 0)
    if re.match(r"^!?p\d+$", text):
        negated, name = text.startswith("!"), text.lstrip("!")
        return lambda registers: bool(registers.predicates.get(name, False)) != negated
    if "+" in text:
        parts = [_value(part) for part in text.split("+")]
        return lambda registers: sum(part(registers) for part in parts)
    return None


def _address(text: str) -> Value:
    return _understood(text.split("@")[0].split("_")[0]) or (lambda registers: 0)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern} in the instruction's {text!r}")
    return found.group(1)


def _flags(text: str) -> list[str]:
    return re.findall(r"\[sflag:([^\]]+)\]", text)


def _transfer(target: str, text: str) -> tuple[Value | None, tuple[Any, bool]]:
    """A DMA's flag, and its length in granules with whether HBM is at one of its ends."""
    flags = _flags(target)
    length = _first(r"length:([^,\s]+)", text)
    spaces = re.findall(r"\[(hbm|vmem|smem|imem|host|cmem|sparse)[:\]]", f"{target} {text}")[:2]
    return (_address(flags[0]) if flags else None), (_value(length), "hbm" in spaces)


def _jump(operation: str, text: str, arguments: list[str]) -> tuple[str, Any, Any]:
    if operation in ("sbr.rel", "sbr.abs"):
        return "branch", None, int(_jump_target(operation, text), 16)
    return "branch_indirect", None, _value(arguments[-1])


def _jump_target(operation: str, text: str) -> str:
    pattern = r"\(=0x([0-9a-f]+)\)" if operation.endswith(".rel") else r"0x([0-9a-f]+)"
    return _first(pattern, text)
