"""One step on many devices: the same losses, batch statistics and parameters as on one, however it is split."""

import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from filelock import FileLock

from zoo.configs import TrainConfig
from zoo.errors import UserError
from zoo.parallel import Parallel
from zoo.random_parts import part_of
from zoo.tasks.classification import Classification
from zoo.train import main


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Any]:
    """Computed once for all workers: the one that waits leaves its core to the eight devices."""
    own = tmp_path_factory.getbasetemp()
    kept = (own if worker_id == "master" else own.parent) / "eight_devices.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(json.dumps(told_by("tests.many_devices")))
    return json.loads(kept.read_text())


def told_by(*command: str) -> dict[str, Any]:
    """What `tests.many_devices` tells of its cases."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    command = (sys.executable, "-m", *command)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_alike(case: dict[str, Any], one_device: dict[str, Any], rtol: float = 1e-5) -> None:
    """AdamW moves a parameter whose gradient is nearly nothing as far as any other: there rounding shows."""
    np.testing.assert_allclose(case["losses"], one_device["losses"], rtol=rtol)
    found, expected = np.array(case["numbers"]), np.array(one_device["numbers"])
    off = np.abs(found - expected) > 1e-5 + 1e-4 * np.abs(expected)
    assert off.mean() < 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ways", [1, 2, 4, 8])
@pytest.mark.parametrize("strategy", ["jit", "shard_map", "pmap"])
def test_batch_norm_and_dropout_are_those_of_one_device(strategy, ways, eight_devices):
    assert_alike(eight_devices[f"clips {strategy} {ways}"], eight_devices["clips jit 1"])


@pytest.mark.parametrize("case", ["shard_map 4", "pmap 2"])
def test_neighbours_share_their_batch_statistics(case, eight_devices):
    assert_alike(eight_devices[f"halves {case}"], eight_devices["halves"])
    assert eight_devices["halves"]["losses"] != eight_devices["clips jit 1"]["losses"]


@pytest.mark.parametrize("case", ["jit 8", "shard_map 4", "pmap 2"])
def test_noise_is_that_of_one_device(case, eight_devices):
    assert_alike(eight_devices[f"noise {case}"], eight_devices["noise none"])


@pytest.mark.parametrize("case", ["shard_map 4", "pmap 2"])
def test_gradients_of_half_precision_are_told_in_half_the_bytes(case, eight_devices):
    found, expected = eight_devices[f"half {case}"], eight_devices["half jit 1"]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=0.02)
    assert found["sums"]
    assert [kind for kind in found["sums"] if "xf32" in kind] == [], (
        "figures, which are single numbers, alone are wider"
    )


@pytest.mark.slow
def test_published_networks_learn_as_on_one_device():
    """A deep network with batch norm of 16 clips multiplies rounding, tenfold from step to step."""
    told = told_by("tests.many_devices", "published")
    for name, case in told.items():
        assert_alike(case, told[f"{name.split()[0]} jit 1"], rtol=1e-4)


@pytest.mark.parametrize("case", ["jit 4", "shard_map 4"])
def test_a_batch_in_parts_is_the_same_on_many_devices(case, eight_devices):
    assert_alike(eight_devices[f"parts {case}"], eight_devices["parts jit 1"])


def test_parameters_lie_split_and_learn_the_same(eight_devices):
    case = eight_devices["noise jit 2x2x2"]
    assert_alike(case, eight_devices["noise none"])
    assert case["shares"] == {"params": 4, "optimizer": 4}, "over fsdp and tensor"


def test_all_but_products_is_computed_anew_and_is_the_same(eight_devices):
    kept, anew = eight_devices["noise none"], eight_devices["noise products"]
    assert_alike(anew, kept)
    assert anew["counts"]["tanh"] == 2 * kept["counts"]["tanh"] > 0
    assert anew["counts"]["dot_general"] == kept["counts"]["dot_general"] > 0


def test_parts_of_a_draw_make_up_the_whole():
    key = jax.random.key(3)

    def drawn(key: jax.Array, rows: int) -> tuple[jax.Array, ...]:
        first, second = jax.random.split(jax.random.fold_in(key, 7))
        return (
            jax.random.bits(first, (rows, 3)),
            jax.random.bernoulli(second, 0.5, (rows,)),
            jax.random.randint(first, (rows * 5, 1), 0, 100),  # frames, an example's one after the other
        )

    whole = drawn(key, 8)
    parts = [drawn(part_of(key, jax.numpy.asarray(part), 4), 2) for part in range(4)]
    for number, draw in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), draw)
    alone = [jax.random.uniform(part_of(key, jax.numpy.asarray(part), 4)) for part in range(4)]
    assert {float(value) for value in alone} == {float(jax.random.uniform(key))}, "a scalar is for all"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parallel", "vmap"], "no way to split a step is called 'vmap'; did you mean pmap?"),
        (["--fsdp", "0"], "--fsdp is 0; it must be 1 or more"),
        (["--parallel", "pmap", "--fsdp", "2"], "--parallel pmap splits batches only; --fsdp and --tensor want"),
        (["--fsdp", "2"], "a mesh of fsdp 2 x tensor 1 is larger than the 1 device; take divisors of 1"),
        (["--batch-norm-devices", "-1"], "--batch-norm-devices is -1; it must be 1 or more, or 0 for all"),
        (["--batch-norm-devices", "2"], "--batch-norm-devices 2 wants --parallel shard_map or pmap"),
        (["--parallel", "pmap", "--batch-norm-devices", "2"], "2 does not divide the 1 device; take a divisor"),
        (["--accumulate", "3"], "a batch of 64 does not divide by 1 device x 3 parts; the nearest .* --batch-size 63"),
        (["--accumulate", "0"], "accumulate is 0; it must be above 0"),
        (["--remat", "some"], "no rematerialisation 'some'; there are none, products"),
        (["--coordinator", "a:1", "--process-id", "0"], "go together; --num-processes is missing"),
        (["--coordinator", "a", "--process-id", "0", "--num-processes", "2"], "--coordinator a is not HOST:PORT"),
        (["--coordinator", "a:1", "--process-id", "2", "--num-processes", "2"], "--process-id 2 is not from 0 to 1"),
        (["--max-restarts", "-1"], "--max-restarts is -1; it must be 0 or above"),
    ],
)
def test_a_wrong_request_is_told(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        main(["--model", "lstm", *arguments])
    assert not any(tmp_path.iterdir())


class EightDevices(Parallel):
    parts = property(lambda self: 8)  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize(("batch", "nearest"), [(3, 8), (11, 8), (13, 16), (30, 32)])
def test_a_batch_that_does_not_divide_is_told_the_nearest(batch, nearest):
    config = TrainConfig("counting", "classification", "none", steps=1, batch_size=batch, learning_rate=1)
    with pytest.raises(UserError, match=f"a batch of {batch} does not divide by 8 devices; .* --batch-size {nearest}$"):
        EightDevices().check_batch(config)


def test_a_loss_over_the_whole_batch_is_not_computed_from_parts():
    with pytest.raises(UserError, match="Classification's loss joins examples of the whole batch"):
        EightDevices("shard_map").check_task(Classification(mixup=0.2))
    EightDevices("shard_map").check_task(Classification())
    EightDevices("jit").check_task(Classification(mixup=0.2))
