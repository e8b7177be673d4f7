"""A command's memory is in large pages, and it stays the process that was begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import huge_pages

COMMAND = """
import os, re, sys
from zoo import command_line

def main(argv):
    block = b"1" * 2**26
    with open("/proc/self/smaps_rollup") as rollup:
        large = re.search(r"AnonHugePages: *(\\d+) kB", rollup.read())
    print(os.getpid(), *argv, os.environ.get("GLIBC_TUNABLES"), int(large[1]) * 1024 >= len(block) // 2)

command_line.run("command", main)
"""

pytestmark = pytest.mark.skipif(
    not huge_pages._kernel_waits_to_be_asked(), reason="this machine's kernel gives large pages to all, or to none"
)


def ended(environment: dict[str, str]) -> tuple[int, list[str]]:
    """The process's number, and what it printed."""
    others = {name: value for name, value in os.environ.items() if name != huge_pages.SETTING}
    command = [sys.executable, "-c", COMMAND, "one", "two words"]
    with subprocess.Popen(command, env=others | environment, stdout=subprocess.PIPE, text=True) as process:
        told = process.communicate()[0]
    assert process.returncode == 0
    return process.pid, told.split()


def test_a_command_gets_large_pages_and_is_the_same_process():
    number, told = ended({})
    assert told == [str(number), "one", "two", "words", "glibc.malloc.hugetlb=1", "True"]


def test_the_users_own_setting_stays():
    number, told = ended({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    assert told == [str(number), "one", "two", "words", "glibc.malloc.arena_max=1", "False"]


def test_elsewhere_nothing_happens(monkeypatch, tmp_path: Path):
    monkeypatch.delenv(huge_pages.SETTING, raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it began anew"))
    for told in (None, "[always] madvise never", "always madvise [never]"):
        kernel = tmp_path / "enabled"
        if told:
            kernel.write_text(told)
        monkeypatch.setattr(huge_pages, "_KERNEL", kernel)
        huge_pages.begin_with_huge_pages()
    monkeypatch.setattr(huge_pages, "_kernel_waits_to_be_asked", lambda: True)
    for version in ("glibc 2.31", "musl 1.2"):
        monkeypatch.setattr(os, "confstr", lambda _, version=version: version)
        huge_pages.begin_with_huge_pages()
