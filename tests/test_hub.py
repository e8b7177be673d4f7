"""Weight trees: kept in small files, restored anywhere, never half-written."""

import concurrent.futures
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from orbax.checkpoint import v1 as ocp

from tests import tiny
from zoo import hub
from zoo.errors import UserError

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


def abstract() -> nnx.Module:
    return nnx.eval_shape(lambda: tiny.Tiny(3, rngs=nnx.Rngs(0)))


def in_python(script: str, *arguments: object, prefix: tuple[str, ...] = (), **env: str) -> str:
    """What a second Python process prints."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_round_trip(tmp_path: Path):
    arrays = tiny.weights()
    hub.save_weights(tiny.convert(arrays, None), tmp_path / "weights")
    model = hub.restore_weights(abstract(), tmp_path / "weights")
    np.testing.assert_array_equal(model.layers[0].kernel[...], arrays["layers.0.kernel"])
    np.testing.assert_array_equal(model.norm.var[...], arrays["norm.var"])
    assert isinstance(model.norm.var, nnx.BatchStat)
    assert isinstance(model.layers[1].bias, nnx.Param)
    # The random state is not kept, yet dropout works: half of the ones are dropped and the others doubled.
    dropped = np.asarray(model.dropout(jnp.ones(1000)))
    assert set(dropped.tolist()) == {0.0, 2.0}
    assert 400 < np.count_nonzero(dropped) < 600


def test_a_real_network_lends_its_names_and_keeps_its_weights(tmp_path: Path):
    first, second = tiny.Tiny(3, rngs=nnx.Rngs(1)), tiny.Tiny(3, rngs=nnx.Rngs(2))
    before = jax.tree.map(np.array, hub.weights_of(second))
    hub.save_weights(hub.weights_of(first), tmp_path / "weights")
    restored = hub.restore_weights(second, tmp_path / "weights")
    jax.tree.map(np.testing.assert_array_equal, hub.weights_of(restored), hub.weights_of(first))
    jax.tree.map(np.testing.assert_array_equal, hub.weights_of(second), before)


def test_precision(tmp_path: Path):
    """Kept in float32; restored as asked, but for batch statistics, whose three digits in bfloat16 would not do."""
    half = {"layers": {"0": {"kernel": jnp.full((3, 5), 1 / 3, jnp.bfloat16)}}}
    hub.save_weights(half, tmp_path / "half")
    stored = ocp.load(tmp_path / "half")["layers"]["0"]["kernel"]
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, 1 / 3, rtol=2**-8)

    hub.save_weights(tiny.convert(tiny.weights(), None), tmp_path / "weights")
    model = hub.restore_weights(abstract(), tmp_path / "weights", dtype=jnp.bfloat16)
    assert model.layers[0].kernel[...].dtype == jnp.bfloat16
    assert model.norm.mean[...].dtype == jnp.float32


def test_files_fit_into_git(tmp_path: Path):
    rng = np.random.default_rng(0)
    tree = {f"conv_{index}": {"kernel": rng.normal(size=(3, 3, 384, 1500)).astype(np.float32)} for index in range(2)}
    hub.save_weights(tree, tmp_path / "weights")
    files = [path for path in (tmp_path / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 30e6
    assert max(path.stat().st_size for path in files) < 20e6
    here = os.fsencode(tmp_path)
    assert not [path for path in files if here in path.read_bytes()], "a machine's path is in a file to be published"
    np.testing.assert_array_equal(ocp.load(tmp_path / "weights")["conv_1"]["kernel"], tree["conv_1"]["kernel"])


def test_all_mismatches_are_told_at_once(tmp_path: Path):
    arrays = tiny.weights()
    del arrays["norm.var"], arrays["layers.0.bias"]
    arrays |= {"norm.extra": np.zeros(5, np.float32), "layers.1.kernel": np.zeros((5, 7), np.float32)}
    hub.save_weights(tiny.convert(arrays, None), tmp_path / "weights")
    with pytest.raises(UserError) as error:
        hub.restore_weights(abstract(), tmp_path / "weights")
    message = str(error.value)
    assert "missing layers.0.bias, norm.var" in message
    assert "unknown norm.extra" in message
    assert "layers.1.kernel is (5, 7) instead of (5, 3)" in message
    assert "\n" not in message


def test_no_checkpoint(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("nothing")
    for place in (tmp_path, tmp_path / "notes.txt", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no checkpoint"):
            hub.restore_weights(abstract(), place)


ON_EIGHT_DEVICES = """
    import sys
    import jax, numpy as np
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec as P
    from orbax.checkpoint import v1 as ocp
    from zoo import hub

    folder = sys.argv[1]
    mesh = jax.make_mesh((8,), ("data",))
    def rows(path, shape):
        return NamedSharding(mesh, P("data") if len(shape) == 2 else P())
    model = nnx.eval_shape(lambda: nnx.Linear(16, 5, rngs=nnx.Rngs(0)))
    model = hub.restore_weights(model, folder + "/one", sharding=rows)
    print([shard.data.shape for shard in model.kernel[...].addressable_shards])
    print(np.array_equal(model.kernel[...], np.arange(80).reshape(16, 5)))
    doubled = jax.tree.map(lambda leaf: leaf * 2, hub.weights_of(model))
    hub.save_weights(doubled, folder + "/eight")
    ocp.save(folder + "/by_orbax", doubled)
    try:
        hub.restore_weights(model, folder + "/one", sharding=NamedSharding(mesh, P("data")))
    except ValueError as error:
        print(error)
"""


def test_restores_on_other_devices(tmp_path: Path):
    """One device to eight and back; also from a checkpoint that Orbax wrote in shards, as training does."""
    tree = {"kernel": np.arange(80, dtype=np.float32).reshape(16, 5), "bias": np.ones(5, np.float32)}
    hub.save_weights(tree, tmp_path / "one")
    flags = "--xla_force_host_platform_device_count=8"
    told = in_python(ON_EIGHT_DEVICES, tmp_path, XLA_FLAGS=flags, JAX_PLATFORMS="cpu").splitlines()
    assert told[0] == str([(2, 5)] * 8)
    assert told[1] == "True"
    assert told[2].startswith("bias (5,) cannot be laid out as")
    model = nnx.eval_shape(lambda: nnx.Linear(16, 5, rngs=nnx.Rngs(0)))
    for name in ("eight", "by_orbax"):
        restored = hub.restore_weights(model, tmp_path / name)
        np.testing.assert_array_equal(restored.kernel[...], 2 * tree["kernel"])
        assert restored.kernel[...].devices() == {jnp.zeros(()).device}


FULL_DISK = """
    import resource, sys
    import numpy as np
    from zoo import hub

    folder, limit = sys.argv[1:]
    hub.save_weights({"kernel": np.ones((3, 5))}, folder + "/weights")
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        hub.save_weights({"kernel": np.random.default_rng(0).normal(size=(1000, 1000))}, folder + "/weights")
    except ValueError as error:
        print(type(error).__name__, error)
    from orbax.checkpoint import v1 as ocp
    import os
    print(os.listdir(folder), ocp.load(folder + "/weights")["kernel"].sum())
"""


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path):
    """On a file system of 2 MB where one may be mounted, else under a limit on a file's size."""
    mount = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    mount = (*mount, 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(tmp_path))
    mounted = subprocess.run([*mount, "true"], capture_output=True).returncode == 0
    told = in_python(
        FULL_DISK, tmp_path, "" if mounted else 2**20, prefix=mount if mounted else (), JAX_PLATFORMS="cpu"
    )
    reason = "No space left on device" if mounted else "File too large"
    assert told.splitlines() == [f"UserError cannot write {tmp_path}/weights: {reason}", "['weights'] 15.0"]


def test_compiled_programs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hits = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_hits" in event else None)
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    try:
        monkeypatch.setenv("ZOO_COMPILATION_CACHE", "off")
        hub.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir is None
        (tmp_path / "file").touch()
        monkeypatch.setenv("ZOO_COMPILATION_CACHE", str(tmp_path / "file" / "below"))
        with pytest.warns(UserWarning, match="below cannot be written"):
            hub.use_compilation_cache()
        monkeypatch.delenv("ZOO_COMPILATION_CACHE")
        hub.use_compilation_cache()
        assert jax.config.jax_compilation_cache_max_size == 2**31
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for found in (0, 1):  # a new function each time: nothing but the folder remembers it
            assert jax.jit(lambda x: (x @ x).sum())(np.ones((4, 4), np.float32)) == 64
            assert len(hits) == found
        assert [path for path in (tmp_path / "compiled").iterdir() if path.name.endswith("-cache")]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.slow
def test_each_of_many_processes_fetches_what_it_lacks(tmp_path: Path):
    """As on machines with caches of their own; then all restore together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    script = """
        import sys, jax, zoo
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        print(zoo.load("silero_vad").card.name)
        jax.distributed.shutdown()
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        told = [
            pool.submit(in_python, script, coordinator, number, JAX_PLATFORMS="cpu", ZOO_CACHE=str(tmp_path / cache))
            for number, cache in enumerate(("first", "second"))
        ]
        assert [each.result().strip() for each in told] == ["silero_vad"] * 2
    assert len(list(tmp_path.glob("*/weights/silero_vad-*/files.json"))) == 2
