"""A command that is run anew when it crashed: `--max-restarts`."""

import signal
import subprocess
import sys
from collections.abc import Sequence

_FINAL = {0, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM}
"""Exit codes after which a restart would be wrong: done, the user's mistake, stopped and saved on request."""


def run_with_restarts(command: Sequence[str], max_restarts: int) -> int:
    """Runs a command as a process of its own until it ends in good order; returns its exit code.

    SIGINT and SIGTERM are passed on. After `max_restarts` crashes more than none the last one's code is returned, 128
    and the signal's number if a signal ended it.
    """
    before = {}
    try:
        for restarts in range(max_restarts + 1):
            process = subprocess.Popen(command)

            def forward(number: int, _: object, process: subprocess.Popen = process) -> None:
                process.send_signal(number)

            for number in (signal.SIGINT, signal.SIGTERM):
                before.setdefault(number, signal.signal(number, forward))
                signal.signal(number, forward)
            ended = process.wait()
            code = ended if ended >= 0 else 128 - ended
            if code in _FINAL or restarts == max_restarts:
                return code
            how = f"by {signal.Signals(-ended).name}" if ended < 0 else f"with exit code {ended}"
            print(f"zoo train: ended {how}; restart {restarts + 1} of {max_restarts}", file=sys.stderr, flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    raise AssertionError("max_restarts is 0 or above")
