"""A page in a real headless Chromium: Debian's, driven by Playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

wanted = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")


@contextlib.contextmanager
def page(address: str) -> Iterator[Any]:
    """An open page; what the browser complains of fails the test, such as something that is missing or not allowed."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        opened.goto(address)
        yield opened
        browser.close()
    assert complaints == []


def position(opened: Any) -> float:
    """Where the page's player is, in seconds, once it has got there."""
    opened.wait_for_function(
        "document.querySelector('video').readyState >= 2 && !document.querySelector('video').seeking"
    )
    return opened.evaluate("document.querySelector('video').currentTime")
