"""`python -m benchmarks.pod_slice --model video_gen --slice v5e-256 --compile-only`: training on a TPU pod slice.

The training step is that of `zoo.train`. On the slice itself it is timed. With `--compile-only`, anywhere, it is
compiled for the slice by the real TPU compiler, and what it will do there is estimated:

- memory of a chip by kind, and whether it fits; operations and bytes as XLA counts them;
- every collective with its bytes, and its time by rings at the published link bandwidth, none of it hidden;
- a chip's own work by the static clock (`benchmarks.tpu_static`), run on the program for one chip with as many clips;
- from these the step's time, model FLOPs utilisation, and weak and strong scaling from one chip to the slice.

The table, `benchmarks/results/<slice>-pod.csv`, keeps what it has of other models, strategies and batches; the picture
beside it has all of them. Compiled programs are kept in the zoo's cache.
"""

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks.pod import arithmetic, measured, results, scaling
from benchmarks.pod.collectives import Collective, seconds
from benchmarks.pod.compiled import LateError, compiled
from benchmarks.pod.models import abstract_step, trained
from benchmarks.pod.results import Row, compiled_cells, point_cells, row, told_collectives
from benchmarks.pod.slices import SLICES, Slice, slice_called
from benchmarks.tpu_static import REFUSED, Estimate, EstimateError, judged
from zoo import command_line, hub, processes
from zoo.errors import UserError
from zoo.kernels.dispatch import prefer
from zoo.parallel import Parallel
from zoo.process_flags import ALONE


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times a training step on a TPU pod slice, or estimates it without one."""

    model: str = "video_gen"
    """What is trained: video_gen, r2plus1d_18 or convlstm."""
    slice: str = "v5e-256"
    """A chip and how many of them: v5e-256, v6e-64, v5p-512."""
    parallel: str = "jit"
    """How the step is split: jit, shard_map, pmap, or several with commas between, to compare them."""
    batch_norm_devices: int = 0
    """Neighbouring chips that share a batch's statistics, with shard_map or pmap; 0 is all."""
    per_chip_batch: int = 8
    """Clips on each chip."""
    sweep: bool = False
    """Find the most clips a chip that fit, too."""
    compile_only: bool = False
    """Compile for the slice and estimate, where it is not at hand."""
    patience: float = 1800.0
    """Seconds that the compiler has for one program."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.pod_slice")
    slice_ = slice_called(arguments.slice)
    trained(arguments.model)
    near = arguments.batch_norm_devices
    ways = [Parallel(strategy, batch_norm_devices=near) for strategy in arguments.parallel.split(",")]
    for parallel in ways:
        parallel.check()
    if near and slice_.chips % near:
        raise UserError(f"--batch-norm-devices {near} does not divide the {slice_.chips} chips; take a divisor")
    if arguments.per_chip_batch < 1:
        raise UserError(f"--per-chip-batch is {arguments.per_chip_batch}; it must be 1 or more")
    if arguments.compile_only:
        jax.config.update("jax_platforms", "cpu")
        estimate(arguments, slice_, ways)
        return
    if arguments.sweep:
        raise UserError("--sweep compiles what may not fit, for which it wants --compile-only")
    with processes.joined(ALONE, timeout=300):
        if jax.process_count() > 1:
            processes.check_alike(dataclasses.asdict(arguments))
        hub.use_compilation_cache()
        measure(arguments, slice_, ways)


def estimate(arguments: Arguments, slice_: Slice, ways: Iterable[Parallel]) -> None:
    """Compiles, estimates, and keeps in the table what there is so far."""
    header, file = results.estimate_header(slice_), results.file_of(slice_, measured=False)
    made: list[Row] = []
    for parallel in ways:

        def compiled_with(per_chip: int, parallel: Parallel = parallel) -> dict[str, Any]:
            return compiled(arguments.model, slice_, parallel, per_chip, arguments.patience)

        for rows in rows_of(arguments, slice_, parallel, compiled_with(arguments.per_chip_batch)):
            results.keep(file, header, rows)
            made += rows
        if arguments.sweep:
            tried = sweep(compiled_with, arguments.per_chip_batch)
            rows = [
                row(arguments.model, parallel, "memory", slice_.chips, per_chip) | compiled_cells(program, slice_)
                for per_chip, program in sorted(tried.items())
            ]
            results.keep(file, header, rows)
            made += rows
    told(file, header, made)


def measure(arguments: Arguments, slice_: Slice, ways: Iterable[Parallel]) -> None:
    """Times the step on the chips that are here, and writes the table after each strategy."""
    measured.check_here(slice_)
    header, file = results.measured_header(slice_, measured.hardware()), results.file_of(slice_, measured=True)
    flops, made = model_flops(arguments.model), []
    for parallel in ways:
        times = list(measured.points(arguments.model, parallel, arguments.per_chip_batch, measured.meshes()))
        rows = []
        for point, time in times:
            clips = point.global_batch // point.chips
            cells = row(arguments.model, parallel, point.scaling, point.chips, clips) | measured.cells(time)
            share = scaling.efficiency(point, [p for p, _ in times])
            cells |= point_cells(point, flops * clips, slice_, share) | {"model_tflop": f"{flops * clips / 1e12:.4f}"}
            rows.append(cells)
        if jax.process_index() == 0:
            results.keep(file, header, rows)
        made += rows
    if jax.process_index() == 0:
        told(file, header, made)


def told(file: Path, header: str, made: list[Row]) -> None:
    """The table on the screen, and the picture of all that the file has."""
    results.show(header, made)
    console = Console(stderr=True)
    for path in (file, results.draw(file, header)):
        console.print(f"wrote {path}", soft_wrap=True)


def rows_of(arguments: Arguments, slice_: Slice, parallel: Parallel, program: dict[str, Any]) -> Iterator[list[Row]]:
    """Weak scaling, then strong; where no time can be told, the slice's memory and collectives alone."""
    model, per_chip = arguments.model, arguments.per_chip_batch
    whole = row(model, parallel, "weak", slice_.chips, per_chip) | compiled_cells(program, slice_)
    if not program["fits"]:
        yield [whole]
        return
    collectives = [Collective(**one) for one in program["collectives"]]
    whole["collective_ms"] = f"{1e3 * seconds(collectives, slice_):.3f}"
    whole["collectives"] = told_collectives(collectives, slice_)
    if slice_.chip.name in REFUSED:
        note(f"{slice_.name}: memory and collectives only; {REFUSED[slice_.chip.name]}")
        yield [whole]
        return
    flops = model_flops(model)

    def timed(points: list[scaling.Point]) -> list[Row]:
        made = []
        for point in points:
            clips, share = point.global_batch // point.chips, scaling.efficiency(point, points)
            cells = point_cells(point, flops * point.global_batch / point.chips, slice_, share)
            made.append(row(model, parallel, point.scaling, point.chips, clips) | cells)
        return made

    own: dict[int, float] = {}
    if cost := one_chip(arguments, slice_, per_chip, flops):
        own[per_chip] = cost.microseconds / 1e6
        *fewer, last = timed(scaling.weak(own[per_chip], per_chip, collectives, slice_))
        dearest = ", ".join(f"{name} {cycles / cost.cycles:.0%}" for name, cycles in cost.by_operation[:6])
        yield [*fewer, whole | last | {"model_tflop": f"{flops * per_chip / 1e12:.4f}", "dearest": dearest}]
    else:
        yield [whole]
    clips = per_chip
    while clips % 2 == 0 and slice_.chips > 1:
        clips //= 2
        if cost := one_chip(arguments, slice_, clips, flops):
            own[clips] = cost.microseconds / 1e6
    yield timed(scaling.strong(own, per_chip, collectives, slice_))


def one_chip(arguments: Arguments, slice_: Slice, clips: int, flops: float) -> Estimate | None:
    """A chip's own work on so many clips, by the static clock; None, with a note, where it cannot be told.

    Args:
      flops: of the model for one clip.
    """
    try:
        program = compiled(arguments.model, SLICES[f"{slice_.chip.name}-1"], Parallel(), clips, arguments.patience)
        if not program["fits"]:
            raise EstimateError("it does not fit")
        counted = program["count"] | {"compile_seconds": program["compile_seconds"]}
        return judged(counted, slice_.chip, flops * clips)
    except (LateError, EstimateError) as error:
        note(f"no time of {clips} clips on one chip: {error}")
        return None


def sweep(compiled_with: Callable[[int], dict[str, Any]], start: int) -> dict[int, dict[str, Any]]:
    """Programs by clips a chip, among them the most that fit and the next that do not, an eighth more at most."""
    tried = {start: compiled_with(start)}
    while all(program["fits"] for program in tried.values()):
        more = 2 * max(tried)
        tried[more] = compiled_with(more)
    while not any(program["fits"] for program in tried.values()) and min(tried) > 1:
        fewer = min(tried) // 2
        tried[fewer] = compiled_with(fewer)
    while True:
        least = min(clips for clips, program in tried.items() if not program["fits"])
        most = max((clips for clips, program in tried.items() if program["fits"]), default=0)
        if least - most <= max(1, most // 8):
            return tried
        between = (most + least) // 2
        tried[between] = compiled_with(between)


def model_flops(model: str) -> float:
    """Of a training step's products for one clip."""
    of, batch = trained(model).on(Parallel(devices=tuple(jax.devices()[:1])), 1)
    with prefer("xla"):  # the products of a kernel are not to be seen
        step, state = abstract_step(of, Parallel(devices=tuple(jax.devices()[:1])))
        return arithmetic.flops(step, state, batch)


def note(text: str) -> None:
    Console(stderr=True).print(f"note: {text}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: the compiler's process is to end as well
    command_line.run("python -m benchmarks.pod_slice", main)
