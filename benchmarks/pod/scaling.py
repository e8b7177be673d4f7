"""How a training step scales over the chips of a slice: estimated from what was compiled, and what times come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.pod.collectives import Collective, seconds
from benchmarks.pod.slices import Slice


@dataclass(frozen=True)
class Point:
    """A training step on so many chips, in seconds; `collective` of them go into telling the others, where known.

    `scaling` is "weak" or "strong".
    """

    scaling: str
    chips: int
    global_batch: int
    step: float
    collective: float | None


def weak(own: float, per_chip: int, collectives: Sequence[Collective], slice_: Slice) -> list[Point]:
    """With the same batch on each chip, whose own work, `own` seconds, is always the same."""
    told = ((s.chips, seconds(_on(s, collectives), s)) for s in slice_.smaller())
    return [Point("weak", chips, per_chip * chips, own + collective, collective) for chips, collective in told]


def strong(own: Mapping[int, float], per_chip: int, collectives: Sequence[Collective], slice_: Slice) -> list[Point]:
    """With the same batch in all, one clip for each chip of the slice.

    Args:
      own: seconds of a chip's own work by its clips; sizes that it lacks are left out.
      per_chip: a chip that has more clips than these takes so many at a time, and adds up gradients.
    """
    points = []
    for s in slice_.smaller():
        clips = slice_.chips // s.chips
        at_once = min(clips, per_chip)
        if clips % at_once == 0 and at_once in own:
            collective = seconds(_on(s, collectives), s)
            step = own[at_once] * (clips // at_once) + collective
            points.append(Point("strong", s.chips, slice_.chips, step, collective))
    return points


def _on(slice_: Slice, collectives: Sequence[Collective]) -> list[Collective]:
    """What neighbours tell each other where there are fewer chips than they."""
    return [replace(one, chips=min(one.chips, slice_.chips)) for one in collectives]


def efficiency(point: Point, points: Iterable[Point]) -> float | None:
    """Clips a second and chip as a share of the same on one chip; None where one chip is not among the points."""
    alone = next((p for p in points if p.scaling == point.scaling and p.chips == 1), None)
    if alone is None:
        return None
    return (point.global_batch / point.step / point.chips) / (alone.global_batch / alone.step)
