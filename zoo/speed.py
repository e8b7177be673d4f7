"""How fast a run goes, and where its time goes."""

import contextlib
import math
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from zoo.chips import PEAK_FLOPS


class Speed:
    """Counts steps between two looks at the clock. The figures:

    - `steps_per_second`, `clips_per_second`, `frames_per_second`: of the whole run, all processes together.
    - `mfu`: model FLOPs utilisation, the floating-point operations that XLA counts in the step's program as a share of
      what the chips could do in bfloat16; left out where `zoo.chips` does not know the chip. XLA counts the body of a
      loop once, so a recurrent network's share is told too low.
    - `data_wait`: share of the time that this process waited for a batch.
    - `host_memory_peak_bytes`, and `device_memory_peak_bytes` where the device tells it: of this process so far.
    - `goodput`: share of the time since the run began, pauses and restarts counted, that went into steps which were not
      lost. `productive_seconds` and `begun` (Unix time) are what a resumed run goes on counting from.

    Args:
      flops: of one step on one device, as XLA counts them.
      before: the last figures of the run that is gone on with; {} for a new one.
    """

    def __init__(self, flops: float, before: Mapping[str, float]):
        self.flops = flops
        self.peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
        self.productive = before.get("productive_seconds", 0.0)
        self.begun = before.get("begun", time.time())
        self.resume()

    def resume(self) -> None:
        """Starts counting anew, after something that is not a step."""
        self.clock, self.waited, self.steps, self.clips, self.frames = time.monotonic(), 0.0, 0, 0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context in which a batch is waited for."""
        clock = time.monotonic()
        yield
        self.waited += time.monotonic() - clock

    def count(self, batch: Mapping[str, Any]) -> None:
        """Notes a step on this process's rows of a batch."""
        rows = len(next(iter(batch.values())))
        self.steps += 1
        self.clips += rows * jax.process_count()
        self.frames += rows * jax.process_count() * (batch["video"].shape[1] if "video" in batch else 1)

    def figures(self) -> dict[str, float]:
        """Of the steps since the last look, which are to be over; counting starts anew."""
        seconds = time.monotonic() - self.clock
        self.productive += seconds
        counts = {"steps": self.steps, "clips": self.clips, "frames": self.frames}
        told = {f"{what}_per_second": count / seconds for what, count in counts.items()}
        if self.peak and self.flops:
            told["mfu"] = self.flops * self.steps / seconds / self.peak
        told["data_wait"] = self.waited / seconds
        told["host_memory_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if stats := jax.local_devices()[0].memory_stats():
            told["device_memory_peak_bytes"] = stats["peak_bytes_in_use"]
        told["goodput"] = self.productive / max(self.productive, time.time() - self.begun)
        self.resume()
        return told | {"productive_seconds": self.productive, "begun": self.begun}


def flops_of(program: jax.stages.Compiled) -> float:
    """Floating-point operations of a program on one device as XLA counts them, 0 if it does not."""
    analysis = program.cost_analysis() or {}
    flops = analysis.get("flops", 0.0)
    return flops if math.isfinite(flops) and flops > 0 else 0.0


class Profile:
    """Writes a trace of steps 3 to 8 after a start into a folder, for TensorBoard or XProf; none without a folder.

    The steps before them warm caches. Fewer are shown if fewer are left until `total_steps`.
    """

    def __init__(self, folder: Path | None, first_step: int, total_steps: int):
        self.folder = folder
        self.last = min(first_step + 8, total_steps)
        self.first = min(first_step + 3, self.last)

    def before(self, step: int) -> None:
        if self.folder and step == self.first:
            jax.profiler.start_trace(str(self.folder))

    def after(self, step: int, figures: Any) -> bool:
        """Whether the trace was written with this step."""
        if not self.folder or step != self.last:
            return False
        jax.block_until_ready(figures)
        jax.profiler.stop_trace()
        return True
