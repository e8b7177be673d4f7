"""What the README shows is true: its examples run, its table is made from the cards, its pictures are there."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo import list as list_command
from zoo import registry

pytestmark = pytest.mark.usefixtures("compiled_programs")  # of the same models by examples in Python and commands

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parent.parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_model_table_is_made_from_the_cards():
    assert list_command.markdown(registry.list_models()) in README


def test_every_linked_file_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_trainable_model_is_in_the_training_table():
    from zoo import configs

    for model in configs.trainable():
        assert f"--model {model}`" in README


def test_the_short_python_example_runs():
    (example,) = [block for block in blocks("python") if "list_models" in block]
    exec(compile(example, "README.md", "exec"), {})


def test_the_kernel_examples_run():
    import jax.numpy as jnp

    there = {
        "x": jnp.ones((1, 8, 8, 2)),
        "kernel": jnp.ones((3, 3, 2, 4)),
        "clips": jnp.ones((1, 2, 4, 4, 3)),
        "gates_kernel": jnp.ones((3, 3, 3 + 2, 4 * 2)),
        "gates_bias": jnp.zeros(4 * 2),
    }
    (example,) = [block for block in blocks("python") if "gates_kernel" in block]
    exec(compile(example, "README.md", "exec"), there)
    assert there["y"].shape == (1, 2, 2, 4)
    assert there["outputs"].shape == (1, 2, 4, 4, 2)


def real_clips(tmp_path: Path) -> Path:
    folder = Path(os.environ["ZOO_REAL_CLIPS"])
    shutil.copy(folder / "cup.mp4", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_long_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(real_clips(tmp_path))
    (example,) = [block for block in blocks("python") if "embed" in block]
    names: dict[str, Any] = {}
    shown = []  # the value of every expression, as an interactive Python would show it
    for statement in ast.parse(example).body:
        if isinstance(statement, ast.Expr):
            shown.append(eval(compile(ast.Expression(statement.value), "README.md", "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), names)
    answers, features, logits, protocol = shown
    assert {label for label, _ in answers[:2]} == {"opening bottle", "using remote controller (not gaming)"}
    assert (features.shape, features.dtype) == ((1024,), "float32")
    assert names["clips"].shape[1:] == (64, 224, 224, 3)
    assert logits.shape == (1, 400)
    assert protocol == names["predictor"].card.protocol != ""


@pytest.mark.slow
def test_the_streaming_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(real_clips(tmp_path))
    (example,) = [block for block in blocks("python") if "stream" in block]
    shown: dict = {}
    exec(compile(example, "README.md", "exec"), shown)
    assert [label for label, _ in shown["answer"][:2]] == ["using remote controller (not gaming)", "opening bottle"]


@pytest.mark.slow
def test_the_console_examples_run(tmp_path):
    commands = [line.removeprefix("$ uv run ") for line in "".join(blocks("console")).splitlines()]
    ours = [shlex.split(line) for line in commands if line.startswith("zoo ") and not line.startswith("zoo train")]
    assert len(ours) == 8
    place = tmp_path / "kinetics" / "val" / "opening bottle"
    place.mkdir(parents=True)
    shutil.copy(real_clips(tmp_path) / "cup.mp4", place)
    (tmp_path / "videos").mkdir()
    shutil.copy(tmp_path / "cup.mp4", tmp_path / "videos")
    for _, *words in ours:
        # As many as the README shows take minutes; test_evaluate.py and test_video_generator.py count several.
        for flag, few in (("--clips", "1"), ("--crops", "1"), ("--num", "2")):
            if flag in words:
                words[words.index(flag) + 1] = few
        done = subprocess.run([sys.executable, "-m", "zoo", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout or "wrote grid.gif" in done.stderr
