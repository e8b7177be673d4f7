"""What `zoo.load` gives: labels and features of real clips, computed once more in NumPy."""

import io
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import zoo
from tests import tiny
from tests.clips import write_clip
from zoo import predictor as predictor_module
from zoo.errors import UserError


@pytest.fixture
def predictor(cards: Path) -> predictor_module.Classifier:
    tiny.publish_checkpoint(cards)
    return zoo.load("tiny_colours")


def pixels(num_frames: int, seed: int = 0) -> np.ndarray:
    """Frames of the very size and rate that the model takes, so that preprocessing only scales them."""
    colour = np.random.default_rng(seed).integers(0, 256, size=(num_frames, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colour, (num_frames, 8, 8, 3)).copy()


def in_numpy(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, features), averaged over windows of four frames, which the video's length is a multiple of."""
    w = {name: array.astype(np.float64) for name, array in tiny.weights().items()}
    x = ((video.astype(np.float64) - 127.5) / 127.5).reshape(-1, 4, 8, 8, 3).mean(axis=(1, 2, 3))
    hidden = x @ w["layers.0.kernel"] + w["layers.0.bias"]
    features = (hidden - w["norm.mean"]) / np.sqrt(w["norm.var"] + 1e-5) * w["norm.scale"] + w["norm.bias"]
    odds = np.exp(features @ w["layers.1.kernel"] + w["layers.1.bias"])
    return (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=0), features.mean(axis=0)


@pytest.mark.parametrize("num_frames", [4, 12])
def test_labels_and_features(predictor, num_frames: int):
    video = pixels(num_frames)
    probabilities, features = in_numpy(video)
    answer = predictor(video)
    assert [label for label, _ in answer] == [tiny.LABELS[index] for index in np.argsort(-probabilities)]
    np.testing.assert_allclose([p for _, p in answer], sorted(probabilities, reverse=True), rtol=1e-5)
    embedding = predictor.embed(video)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, features, rtol=1e-4, atol=1e-5)
    both = predictor.features_and_probabilities(predictor.preprocess(video))
    assert [of_clips.shape for of_clips in both] == [(num_frames // 4, 5), (num_frames // 4, 3)]
    np.testing.assert_allclose(both[0].mean(axis=0), features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[1].mean(axis=0), probabilities, rtol=1e-5)


def test_what_is_open_to_use(predictor):
    assert predictor.card == zoo.card("tiny_colours")
    assert predictor.labels == tiny.LABELS
    video = pixels(4)
    clips = predictor.preprocess(video)
    assert clips.shape == (1, 4, 8, 8, 3)
    logits = np.asarray(predictor.model(clips))[0]
    expected = dict(predictor(video))
    np.testing.assert_allclose([expected[label] for label in tiny.LABELS], jax.nn.softmax(logits), rtol=1e-5)


def test_every_kind_of_video(predictor, tmp_path: Path):
    path = write_clip(tmp_path / "clip.mkv", pixels(4), fps=10, codec="ffv1")
    expected = predictor(pixels(4))
    for video in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert predictor(video) == expected
    with pytest.raises(UserError, match=r"nowhere\.mp4"):
        predictor(tmp_path / "nowhere.mp4")


def test_one_compilation_for_all_lengths(predictor, tmp_path: Path):
    predictor_module._run.clear_cache()
    for num_frames in (4, 8, 9, 40):
        predictor(pixels(num_frames, seed=num_frames))
    predictor(write_clip(tmp_path / "clip.mkv", pixels(6), fps=10, codec="ffv1"))
    with pytest.warns(UserWarning, match="last frame is repeated"):
        predictor(pixels(2))
    assert predictor_module._run._cache_size() == 1
    predictor.embed(pixels(8))
    assert predictor_module._run._cache_size() == 2


def test_weights_are_no_constants(predictor):
    """Another's weights change the answers without another compilation."""
    video = pixels(4)
    first = predictor(video)
    compiled = predictor_module._run._cache_size()
    bias = predictor.model.layers[1].bias
    bias[...] = jax.device_put(jnp.array([0.0, 0.0, 100.0]), bias.sharding)
    assert predictor(video)[0] == ("blue", pytest.approx(1.0))
    assert first[0][1] < 0.999
    assert predictor_module._run._cache_size() == compiled


def test_bfloat16(predictor):
    half = zoo.load("tiny_colours", dtype=jnp.bfloat16)
    assert half.model.layers[0].kernel[...].dtype == jnp.bfloat16
    video = pixels(12)
    assert half.embed(video).dtype == np.float32
    expected = in_numpy(video)[1]
    error = np.abs(half.embed(video) - expected).max()
    assert 1e-5 < error < 0.03 * np.abs(expected).max()  # so it was computed in bfloat16, and well


def test_placement(cards: Path):
    tiny.publish_checkpoint(cards)
    device = jax.devices("cpu")[0]
    everywhere = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec())
    expected = zoo.load("tiny_colours")(pixels(4))
    for place in ({"device": "cpu"}, {"device": device}, {"sharding": everywhere}, {"sharding": lambda *_: everywhere}):
        loaded = zoo.load("tiny_colours", **place)
        assert loaded(pixels(4)) == expected
        if "sharding" in place:
            assert loaded.model.layers[0].kernel[...].sharding == everywhere
    with pytest.raises(UserError, match="both given"):
        zoo.load("tiny_colours", device="cpu", sharding=everywhere)
    with pytest.raises(UserError, match=r"no device 'abacus' here; there is cpu"):
        zoo.load("tiny_colours", device="abacus")


def test_names(cards: Path):
    tiny.publish_checkpoint(cards)
    with pytest.raises(UserError, match="did you mean tiny_colours"):
        zoo.load("tiny_colors")


def test_a_task_without_calls_of_its_own(cards: Path):
    card = tiny.publish_checkpoint(cards, task="daydreaming")
    loaded = zoo.load(card.name)
    assert type(loaded) is predictor_module.Predictor
    assert loaded.model.layers[0].kernel[...].shape == (3, 5)


def test_importing_zoo_does_not_wait_for_jax():
    script = "import sys, zoo; zoo.list_models(); print({'jax', 'flax', 'av', 'orbax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_zoo_card_is_a_function_also_after_its_module_was_imported(cards: Path):
    import zoo.card

    assert zoo.card(tiny.publish_checkpoint(cards).name).arch == "tiny"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        zoo.lode  # noqa: B018


def test_a_long_video_is_told_window_by_window(predictor, tmp_path):
    """Half red, half blue, at twice the model's rate: its windows are those cut by hand."""
    frames = np.concatenate([np.full((22, 8, 8, 3), (255, 0, 0)), np.full((22, 8, 8, 3), (0, 0, 255))]).astype(np.uint8)
    path = write_clip(tmp_path / "long.mkv", frames, fps=20, codec="ffv1")
    found = list(predictor.windows(path, batch_size=4))
    assert [seconds for seconds, _ in found] == pytest.approx([0.4 * number for number in range(6)])
    kept = frames[::2]
    kept = np.concatenate([kept, kept[-1:].repeat(2, axis=0)])
    compiled = predictor_module._run._cache_size()
    for (_, shares), window in zip(found, kept.reshape(6, 4, 8, 8, 3), strict=True):
        expected = dict(predictor(window))
        np.testing.assert_allclose(shares, [expected[label] for label in tiny.LABELS], rtol=1e-5)
    assert len(list(predictor.windows(path))) == 6
    assert predictor_module._run._cache_size() <= compiled + 1, "the window of a call, and no more"


@pytest.mark.slow
def test_an_hour_is_looked_at_in_the_memory_of_a_minute(predictor, tmp_path):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    noise = np.random.default_rng(0).integers(0, 256, (64, 120, 160, 3), np.uint8)
    frames = (noise[number % 64] for number in range(3600))  # one a second, of which the model sees each ten times
    path = write_clip(tmp_path / "hour.mp4", frames, fps=1, codec_options={"preset": "ultrafast", "crf": "40"})
    grown, count = 0, 0
    for number, _ in enumerate(predictor.windows(path)):
        if number == 150:  # a minute of it
            before = resident()
        grown = resident() - before if number > 150 else 0
        count = number + 1
    assert count == 8998, "of four looks each, a tenth of a second apart, up to the last frame's 3599 s"
    assert grown < 40 * 2**20, "held as arrays the frames would take five times as much"
