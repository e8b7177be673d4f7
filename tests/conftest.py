"""Fixtures that several files share."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Every call of these in any test is held to the shapes that its signature states.
install_import_hook(["zoo.models", "zoo.tasks"], "beartype.beartype")

from tests import tiny  # noqa: E402


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of cards in place of the project's, the architecture `tiny`, and a cache of the test's own."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    tiny.register(monkeypatch.setitem, monkeypatch.setattr, folder)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_COMPILATION_CACHE", "off")
    return folder
