"""Large pages of memory for a command on Linux: up to a fifth of a network's time on a CPU (benchmarks/large_pages.py).

XLA takes fresh memory for each call of a program on a CPU and gives it back. In pages of 4 KiB the kernel has to clear
and hand out tens of thousands of them a call; in pages of 2 MiB a few hundred.
"""

import os
import sys
from pathlib import Path

SETTING, LARGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
"""The variable that glibc reads as a process begins, and what asks it for large pages."""

_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def begin_with_huge_pages() -> None:
    """Begins this process anew, in its place, with memory in large pages; does nothing where that is so or cannot be.

    glibc asks for large pages only if it was told so when the process began. A setting of the user's own stays.
    """
    if SETTING not in os.environ and _kernel_waits_to_be_asked() and _glibc() >= (2, 35):
        os.environ[SETTING] = LARGE
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _kernel_waits_to_be_asked() -> bool:
    """Otherwise it gives large pages to all, or to none."""
    try:
        return "[madvise]" in _KERNEL.read_text(encoding="ascii")
    except OSError:  # not Linux, or one without them
        return False


def _glibc() -> tuple[int, ...]:
    """The version, or nothing for another C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ()
    return tuple(int(part) for part in version.split(".") if part.isdecimal()) if name == "glibc" else ()
