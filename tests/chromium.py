"""A page in a real headless Chromium: Debian's, driven by Playwright."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

_PATIENCE = 60  # seconds

wanted = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")


@contextlib.contextmanager
def page(address: str) -> Iterator[Any]:
    """An open page; what the browser complains of fails the test, such as something that is missing or not allowed."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page()
        opened.set_default_timeout(1000 * _PATIENCE)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        opened.goto(address)
        yield opened
        browser.close()
    assert complaints == []


def until(opened: Any, expression: str) -> None:
    """Waits for what a page's script can see; asked from without, which a page's policy cannot forbid."""
    end = time.monotonic() + _PATIENCE
    while not opened.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


def position(opened: Any) -> float:
    """Where the page's player is, in seconds, once it has got there."""
    player = "document.querySelector('video')"
    until(opened, f"{player}.readyState >= 2 && !{player}.seeking")
    return opened.evaluate(f"{player}.currentTime")


def is_in_sight(opened: Any, selector: str) -> bool:
    """Whether all of an element, from its top to its bottom, is within the window."""
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    return opened.evaluate(f"{box}.top >= 0 && {box}.bottom <= innerHeight")
