"""The kernel table: what it keeps, what it refuses, and which choices follow from it. Nothing is compiled here."""

import importlib.util
from types import SimpleNamespace

import pytest

from benchmarks import kernel_blocks, kernels, models_static, tables
from benchmarks.kernel_rows import rows
from benchmarks.tpu_static import CHIPS, EstimateError
from zoo.errors import UserError

ONE = "i3d mixed 3b branch 3"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for tables and choices, and a compiler that is never asked."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "TUNED", tmp_path)
    monkeypatch.setattr(kernels, "check", lambda chip: None)
    monkeypatch.setattr(kernels, "versions", lambda: "jax 1, libtpu 1")
    return tmp_path


@pytest.fixture
def times(monkeypatch):
    """Makes each estimate take the next of these microseconds, or raise it; what was asked for is in `asked`."""
    answers, asked = [], []

    def estimate(program, *shapes, chip, **_):
        asked.append((chip, [shape.shape for shape in shapes]))
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return SimpleNamespace(microseconds=answer)

    monkeypatch.setattr(kernels, "estimate", estimate)
    return SimpleNamespace(answers=answers, asked=asked)


def cells(**known):
    return (
        dict.fromkeys(kernels.FIELDS, "") | {"model": "i3d", "operation": "conv", "key": "shape", "floor": "1"} | known
    )


def choices(*measured):
    """What is chosen after these tables, one a chip."""
    chips = ("v5e", "v6e")[: len(measured)]
    for chip, table in zip(chips, measured, strict=True):
        kernels.write(chip, {key: row | dict(zip(("case", "row"), key, strict=True)) for key, row in table.items()})
    kernels.tune(chips)
    return tables.choices("tpu")


def blocks(chip, **microseconds):
    """Keeps the times of block sizes that were tried for the row ("a", "forward")."""
    found = (
        {"case": "a", "row": "forward", "blocks": b.replace("_", "="), "microseconds": t}
        for b, t in microseconds.items()
    )
    tables.write(tables.RESULTS / f"{chip}-blocks.csv", "by hand", kernel_blocks.FIELDS, found)


@pytest.mark.parametrize("command", [kernels, models_static])
@pytest.mark.parametrize(
    ("chip", "why"), [("v9", "no chip 'v9'; there are v5e, v6e"), ("v4", "v4 is refused: its programs")]
)
def test_a_chip_that_cannot_be_judged_is_one_line(command, chip, why):
    with pytest.raises(UserError, match=why):
        command.main(["--chip", chip])


@pytest.mark.parametrize("command", [kernels, models_static])
def test_without_the_compiler_nothing_is_written(command, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "libtpu" else find(name))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(UserError, match="the TPU compiler is not installed: uv sync --extra tpu"):
        command.main(["--chip", "v5e"])
    assert not list(tmp_path.iterdir())


def test_a_stopped_run_goes_on_where_it_was(folder, times):
    times.answers += [1853.0, 72.0, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        kernels.main(["--chip", "v5e", "--only", ONE])
    times.answers += [74.0, 33.0, 2156.0, 1673.0, EstimateError("too; long\nfor us"), 65.0]
    kernels.main(["--chip", "v5e", "--only", ONE])
    assert not times.answers
    kernels.main(["--chip", "v5e", "--only", ONE])  # nothing is left to measure
    table = kernels.read("v5e")
    forward, gradient = table[ONE, "forward"], table[ONE, "gradient"]
    assert [forward[c] for c in kernels.COLUMNS] == ["1853.0", "72.0", "74.0", "33.0", ""]
    # 1853 / 33, 72 / 33, min(1853, 72, 74) / 33, nothing of ours with the batch inside, and 31.4 / 33
    assert [forward[c] for c in (*kernels.RATIOS, "roofline")] == ["56.15", "2.18", "2.18", "", "95%"]
    assert gradient["rewritten"] == "-"
    assert gradient["notes"] == "rewritten: too, long for us"
    first = (folder / "v5e-kernels.csv").read_text().partition("\n")[0]
    assert first.startswith("# static estimate, not a measurement: ")
    assert "jax 1, libtpu 1" in first


def test_the_batch_is_beside_the_channels_where_the_column_says_so(folder, times):
    times.answers += [1.0, 1.0]
    kernels.main(["--chip", "v5e", "--only", ONE, "--columns", "xla_batch_inside"])
    assert times.asked[0] == ("v5e", [(8, 28, 28, 4, 192)])


def test_both_sides_have_the_batch_inside_where_a_ratio_says_so(folder, times):
    times.answers += [30.0, 20.0] * 3
    kernels.main(["--chip", "v5e", "--only", "resnet layer 2", "--columns", "xla_batch_inside,pallas_batch_inside"])
    assert [shapes for _, shapes in times.asked[:2]] == [[(28, 28, 16, 128), (3, 3, 128, 128)]] * 2
    assert kernels.read("v5e")["resnet layer 2", "forward"]["both inside"] == "1.50"


def test_figures_of_two_compilers_do_not_share_a_table(folder, times, monkeypatch):
    times.answers += [1.0] * 8
    kernels.main(["--chip", "v5e", "--only", ONE])
    monkeypatch.setattr(kernels, "versions", lambda: "jax 1, libtpu 2")
    with pytest.raises(UserError, match=r"v5e-kernels.csv says .*libtpu 1.*, here are jax 1, libtpu 2; move it away"):
        kernels.main(["--chip", "v5e", "--only", ONE, "--again"])


def test_a_model_that_is_not_known_is_told_before_any_is_compiled(folder, monkeypatch):
    monkeypatch.setattr(models_static, "estimate", lambda *_, **__: pytest.fail("compiled"))
    with pytest.raises(UserError, match="no input is known for 'nope'; there are i3d"):
        models_static.main(["--model", "i3d,nope"])


@pytest.mark.parametrize("arguments", [["--only", "no such case"], ["--columns", "fastest"], ["--tune", "vulkan"]])
def test_what_is_not_there_is_a_mistake_of_the_user(folder, arguments):
    with pytest.raises(UserError):
        kernels.main(["--chip", "v5e", *arguments])


def test_a_choice_has_to_win_on_every_chip(folder):
    one, two = {("a", "forward"): cells(xla="10", pallas_tpu="5")}, {("a", "forward"): cells(xla="5", pallas_tpu="5")}
    assert choices(one, one)["conv shape"] == {"implementation": "pallas_tpu"}
    assert choices(one, two)["conv shape"] == {"implementation": "xla"}


def test_a_kernel_has_to_beat_the_best_form_of_xla(folder):
    row = cells(xla="10", xla_batch_inside="5", rewritten="-", pallas_tpu="6")
    assert choices({("a", "forward"): row})["conv shape"] == {"implementation": "xla"}


def test_what_was_not_tried_is_not_chosen_and_stays_as_it_was(folder):
    tables.write_choices("tpu", "v5e", "hand", {"conv shape": {"implementation": "pallas_tpu"}})
    for untried in (cells(rewritten="5", pallas_tpu="5"), cells(xla="10", rewritten="5")):
        assert choices({("a", "forward"): untried})["conv shape"] == {"implementation": "pallas_tpu"}
    assert choices({})["conv shape"] == {"implementation": "pallas_tpu"}
    refused = cells(xla="10", rewritten="-", pallas_tpu="-")
    assert choices({("a", "forward"): refused})["conv shape"] == {"implementation": "xla"}
    too_slow_to_compile = cells(xla="-", rewritten="7", pallas_tpu="5")
    assert choices({("a", "forward"): too_slow_to_compile})["conv shape"] == {"implementation": "pallas_tpu"}


def test_rows_that_dispatch_cannot_tell_apart_choose_together(folder):
    faster, slower = cells(xla="10", pallas_tpu="5"), cells(xla="10", pallas_tpu="20")
    for forward, step in ((faster, slower), (slower, faster)):
        table = {("a", "forward"): forward, ("a", "training step"): step}
        assert choices(table)["conv shape"] == {"implementation": "xla"}


def test_block_sizes_that_win_on_all_chips_together_are_chosen_with_their_times(folder):
    lost = {("a", "forward"): cells(xla="10", pallas_tpu="11")}
    blocks("v5e", own=11, lines_448=6, lines_896=9)
    blocks("v6e", own=11, lines_448=12, lines_896=9, features_128=1)
    # 6 and 12 make less than 9 and 9, but 12 loses to XLA; sizes tried on one chip only count for nothing.
    assert choices(lost, lost)["conv shape"] == {"implementation": "xla"}
    blocks("v5e", own=11, lines_448=8, lines_896=9)
    blocks("v6e", own=11, lines_448=9, lines_896=9, features_128=1)
    assert choices(lost, lost)["conv shape"] == {"implementation": "pallas_tpu", "blocks": {"lines": 448}}
    blocks("v6e", own=11)
    assert choices(lost, lost)["conv shape"] == {"implementation": "xla"}


def test_the_search_goes_on_where_it_was_and_skips_what_is_far_from_xla(folder, times, monkeypatch):
    monkeypatch.setattr(kernel_blocks, "estimate", kernels.estimate)
    # Of 192 channels the kernel takes 128 at once by itself.
    monkeypatch.setitem(kernel_blocks.TRIED, "max_pool", {"channels": (128, 192)})
    measured = ["--chip", "v5e", "--only", ONE, "--columns", "xla,pallas_tpu"]
    kernels.main([*measured, "--blocks"])
    assert not times.asked
    times.answers += [50.0, 33.0, 50.0, 101.0]
    kernels.main(measured)
    times.answers += [33.0, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        kernels.main([*measured, "--blocks"])
    times.answers += [EstimateError("too slow")]
    kernels.main([*measured, "--blocks"])
    assert not times.answers
    table = {blocks: row["microseconds"] or row["notes"] for (_, _, blocks), row in kernel_blocks.read("v5e").items()}
    assert table == {"own": "33.0", "channels=128": "the same program as one above", "channels=192": "too slow"}


def test_the_floor_holds_what_every_program_has_to_move():
    floors = {(row.case.name, row.name): row.floor("v5e") for row in rows()}
    # 4x8x28x28 pixels of 192 channels that fill two rows of 128 in bfloat16; read and written once.
    array = 4 * 8 * 28 * 28 * 256 * 2 / CHIPS["v5e"].bandwidth * 1e6
    assert floors[ONE, "forward"] == pytest.approx(2 * array)
    # x and the cotangent are read, and the gradient is written; the maxima need not be.
    assert floors[ONE, "gradient"] == pytest.approx(3 * array)
