"""A signal to stop, SIGTERM from the platform or Ctrl-C, heard by every process of a run at the same step."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Context in which SIGINT and SIGTERM only make a request, so that the loop can save between two steps.

    A process on its own stops behind the step in which the signal came; a second signal acts at once. Of many processes
    one needs to hear it: all of them then stop behind the same step, the next that none has begun.
    """

    def __init__(self) -> None:
        self.requested = 0

    def __enter__(self) -> "StopRequest":
        if jax.process_count() > 1:  # JAX listens for SIGTERM itself
            self.before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))}
        else:
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        self._restore()

    def reached(self, step: int) -> bool:
        """Whether the run is to stop behind this step. To be asked once a step, by all processes."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.requested = signal.SIGTERM
        return bool(self.requested)

    def _note(self, number: int, frame: Any) -> None:
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
