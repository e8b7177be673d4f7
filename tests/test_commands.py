"""The commands as a shell sees them: what is on stdout and stderr, and the exit code."""

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.clips import write_clip
from zoo import command_line, predict
from zoo import list as list_command
from zoo.errors import UserError


def zoo_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, env=os.environ)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two red frames: half of what the tiny model's clip holds."""
    return write_clip(tmp_path / "[red].mkv", np.full((2, 8, 8, 3), (255, 0, 0), np.uint8), fps=10, codec="ffv1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo", "predct"], "zoo: no command is called 'predct'; did you mean predict"),
        (["zoo", "card", "no_such_net"], "zoo card: no model is called 'no_such_net'"),
        (["zoo.card", "no_such_net"], "zoo card: no model is called 'no_such_net'"),
        (["zoo.list", "*no_such_net*"], "zoo list: no model matches '*no_such_net*'"),
        (["zoo", "list", "one", "two"], "zoo list: Unrecognized options: two"),
        (["zoo.predict", "a.mp4", "--model", "no_such_net"], "zoo predict: no model is called 'no_such_net'"),
        (["zoo.predict", "a.mp4", "--model", "x", "--tpo", "3"], "zoo predict: Unrecognized options: --tpo, 3; Perh"),
        (["zoo.predict", "a.mp4", "--model", "x", "--top", "few"], "zoo predict: Error parsing --top: invalid lit"),
        (["zoo.predict", "a.mp4", "--model", "x", "--top", "0"], "zoo predict: --top 0 asks for no label"),
        (["zoo", "predict"], "zoo predict: Missing from zoo predict: FILE"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str):
    done = zoo_command(*arguments)
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert done.returncode == 2


def test_help():
    done = zoo_command("zoo", "--help")
    assert done.returncode == 0
    assert "predict" in done.stdout
    done = zoo_command("zoo", "predict", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: zoo predict")
    assert done.stderr == ""


def run(monkeypatch: pytest.MonkeyPatch, main, *arguments: str) -> int:
    """The exit code of a command run in this process."""
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # to be put back
    with pytest.raises(SystemExit) as leaving:
        command_line.run("zoo test", main)
    return leaving.value.code


def test_exit_codes(monkeypatch, capsys):
    def raising(error: BaseException):
        def main(argv: list[str]) -> None:
            raise error

        return main

    assert run(monkeypatch, lambda argv: print(*argv), "a", "b") == 0
    assert capsys.readouterr() == ("a b\n", "")
    assert run(monkeypatch, raising(UserError("two\nlines"))) == 2
    assert capsys.readouterr() == ("", "zoo test: two lines\n")
    assert run(monkeypatch, raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "zoo test: stopped\n")
    with pytest.raises(ZeroDivisionError):  # ours: Python prints the traceback and leaves with 1
        run(monkeypatch, lambda argv: print(1 // 0))


def test_notices_are_one_line(monkeypatch, capsys):
    def main(argv: list[str]) -> None:
        warnings.simplefilter("always")
        warnings.warn("the last frame\nis repeated", stacklevel=1)

    with warnings.catch_warnings():
        assert run(monkeypatch, main) == 0
    assert capsys.readouterr().err == "zoo test: note: the last frame is repeated\n"


def test_a_closed_pipe_is_no_error():
    """`zoo list | head`: what is printed before and after the reader has left."""
    script = "from zoo import command_line; command_line.run('x', lambda _: print('y' * 1000000))"
    done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout is not None
    assert done.stdout.read(3) == "yyy"
    done.stdout.close()
    assert done.stderr is not None
    assert done.stderr.read() == ""
    assert done.wait() == 0


@dataclasses.dataclass
class Arguments:
    """Does it."""

    often: int
    """How often."""
    loud: bool = False


def test_parse():
    assert command_line.parse(Arguments, ["--often", "3", "--loud"], "zoo do") == Arguments(3, loud=True)
    with pytest.raises(UserError, match="--often INT How often") as error:
        command_line.parse(Arguments, [], "zoo do")
    assert str(error.value).endswith("run: zoo do --help")


@pytest.mark.filterwarnings("ignore:the video lasts")
def test_predict(cards: Path, clip: Path, capsys):
    tiny.publish_checkpoint(cards)
    predict.main([str(clip), "--model", "tiny_colours", "--top", "2", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["model"]) == (str(clip), "tiny_colours")
    probabilities = [prediction["probability"] for prediction in told["predictions"]]
    assert len(probabilities) == 2
    assert 1 > probabilities[0] > probabilities[1] > 0
    predict.main([str(clip), "--model", "tiny_colours"])
    table = capsys.readouterr().out
    for prediction, probability in zip(told["predictions"], probabilities, strict=True):
        assert any(prediction["label"] in row and f"{probability:.3f}" in row for row in table.splitlines())
    assert all(label in table for label in tiny.LABELS)


def test_json_has_stdout_to_itself(cards: Path, clip: Path, monkeypatch, capfd):
    """The notice that the clip is short goes to stderr."""
    tiny.publish_checkpoint(cards)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(monkeypatch, predict.main, str(clip), "--model", "tiny_colours", "--json") == 0
    out, err = capfd.readouterr()
    assert len(json.loads(out)["predictions"]) == 3
    assert err.startswith("zoo test: note: the video lasts 0.20 s")
    assert err.count("\n") == 1


def test_predict_wants_a_classifier(cards: Path):
    tiny.publish_checkpoint(cards, task="generation")
    with pytest.raises(UserError, match="tiny_colours is made for generation"):
        predict.main(["clip.mp4", "--model", "tiny_colours"])


def test_list(cards: Path, capsys):
    tiny.publish_checkpoint(cards)
    tiny.publish_checkpoint(cards, name="tiny_shapes", description="names [the] shape")
    list_command.main(["*shapes"])
    told = capsys.readouterr().out
    assert "tiny_shapes" in told
    assert "names [the] shape" in told
    assert "tiny_colours" not in told
    with pytest.raises(UserError, match=r"no model matches '\*sounds'; there are tiny_colours, tin"):
        list_command.main(["*sounds"])


def test_card_tells_everything():
    """Of a model that is really published."""
    done = zoo_command("zoo", "card", "i3d_kinetics400")
    told = " ".join(done.stdout.split())
    assert done.returncode == 0
    for what in ("i3d(num_classes=400)", "400: abseiling, air drumming", "crop=224", "Apache-2.0", "this repository"):
        assert what in told
