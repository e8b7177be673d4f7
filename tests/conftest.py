"""Fixtures that several files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

# Machine code is not polished: tests compile far longer than they run. XLA's own passes stay as they are.
jax.config.update("jax_disable_most_optimizations", True)
# Nothing goes into the user's cache, whichever command a test runs; a test of the cache gives it a folder.
os.environ["ZOO_COMPILATION_CACHE"] = "off"

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
    return folder


@pytest.fixture(scope="module")
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder of them for a file's tests that use the same models again and again, here and in other processes."""
    with pytest.MonkeyPatch.context() as patch:
        # As above: otherwise another process rounds otherwise.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        patch.setenv("ZOO_COMPILATION_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
