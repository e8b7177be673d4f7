"""Clips asked of a small generator, in Python and by the command."""

import dataclasses

import imageio.v3 as iio
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image, ImageSequence, features

import zoo
from tests import clips, fresh
from zoo import configs, generate, kernels, publish, registry, train, video_generator
from zoo.configs.video_gen_moving_digits import CARDS, WORDS
from zoo.errors import UserError
from zoo.registry import ModelCard, WeightSource
from zoo.video_generator import VideoGenerator, class_counts

NAME = "video_gen_moving_digits"
OPTIONS = {"patch": 4, "widths": (32, 32), "halve_time": True}
DRAWING = CARDS[NAME]["preprocessing"] | {"num_frames": 4, "size": 16, "known_frames": 2, "steps": 2}


@pytest.fixture(autouse=True)
def plain_kernels():
    with kernels.prefer("xla"):
        yield


def generator(arch: str = "video_gen", options: dict = OPTIONS, **changes) -> VideoGenerator:
    told = CARDS[NAME] | {"preprocessing": DRAWING | changes, "metrics": {}, "parameters": 0, "flops": 0}
    card = ModelCard(name="small", arch=arch, options=options, source=WeightSource("checkpoint", {}), **told)
    model = fresh.network(arch, **options)
    model.eval()
    return VideoGenerator(card, model)


@pytest.fixture(scope="module")
def small() -> VideoGenerator:
    with kernels.prefer("xla"):
        return generator()


def alike(one: np.ndarray, other: np.ndarray) -> None:
    """To the rounding of pixels."""
    np.testing.assert_allclose(one.astype(int), other, atol=1)


def test_a_clip_depends_on_its_seed_and_place_alone(small, monkeypatch):
    three = small.generate([3, 7], num=3, seed=5)
    assert (three.shape, three.dtype) == ((3, 4, 16, 16, 1), np.uint8)
    alike(small.generate("three seven", num=1, seed=5)[0], three[0])
    monkeypatch.setattr(video_generator, "_BATCH", 2)
    alike(small.generate([3, 7], num=3, seed=5), three)
    assert np.abs(three[0].astype(int) - three[1]).max() > 20
    assert np.abs(three[0].astype(int) - small.generate([3, 7], seed=6)[0]).max() > 20
    assert np.abs(three[0].astype(int) - small.generate([4], seed=5)[0]).max() > 1
    assert np.abs(three[0].astype(int) - small.generate([3, 7], seed=5, guidance=1.0)[0]).max() > 1


def test_things_asked_for_together_are_drawn_apart_and_the_brightest_shows(small, monkeypatch):
    asked = []

    def noted(task, model, counts, keys, frames, known):
        asked.append(counts.copy())
        return np.concatenate([jax.random.uniform(key, (1, *frames.shape[1:]), minval=-1) for key in keys])

    monkeypatch.setattr(video_generator, "generated", noted)
    counts = np.zeros((3, 10), np.float32)
    counts[0, [3, 7]], counts[2, 4] = 1, 2
    drawn = small.draw(counts, seed=5)
    (layers,) = (each[:5] for each in asked)
    np.testing.assert_array_equal(layers, np.eye(11, 10, dtype=np.float32)[[3, 7, 10, 4, 4]])
    # Of two layers of even noise the brighter one lies above the middle in three of four pixels.
    np.testing.assert_allclose((drawn > 127).mean((1, 2, 3, 4)), [0.75, 0.5, 0.75], atol=0.05)
    # Frames show all there is at once, and so does what goes on from them.
    small.draw(counts, seed=5, init=np.zeros((2, 16, 16, 1), np.uint8))
    np.testing.assert_array_equal(asked[-1], counts)


def test_one_that_is_not_layered_is_asked_for_all_at_once(monkeypatch):
    whole, asked = generator(layered=False), []
    monkeypatch.setattr(video_generator, "generated", lambda *given: asked.append(given[2]) or given[4])
    whole.generate([3, 7])
    assert asked[0].sum() == 2


def test_digits_and_words_name_classes():
    counts = np.zeros(10, np.float32)
    np.testing.assert_array_equal(class_counts(None, WORDS), counts)
    counts[[3, 7]] = 1, 2
    for asked in ([3, 7, 7], "three seven seven", "3, Seven 7", ["seven", 3, "7"], np.array([7, 7, 3])):
        np.testing.assert_array_equal(class_counts(asked, WORDS), counts)


def test_long_clips_are_drawn_in_windows_that_overlap(small, monkeypatch):
    """The network is asked again with the last frames, and what it makes of them comes behind."""
    asked = []

    def noted(task, model, counts, keys, frames, known):
        asked.append((frames, known, keys))
        return np.full_like(frames, len(asked) / 10)

    monkeypatch.setattr(video_generator, "generated", noted)
    shares = []
    made = small.generate(3, frames=7, progress=shares.append)
    values = np.unique(made[0].reshape(7, -1), axis=1)[:, 0]
    # Four frames of the first window, two of each further one, of the last of which one is left over.
    np.testing.assert_array_equal(values, np.round((np.array([1, 1, 1, 1, 2, 2, 3]) / 10 + 1) * 127.5))
    np.testing.assert_array_equal([known[0] for _, known, _ in asked], [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(asked[2][0][0, :2], 0.2)
    assert len({tuple(jax.random.key_data(keys)[0].tolist()) for _, _, keys in asked}) == 3
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_clips_go_on_from_given_frames(small, tmp_path, monkeypatch):
    frames = np.broadcast_to(np.arange(0, 120, 10, np.uint8).reshape(12, 1, 1, 1), (12, 16, 20, 3))
    path = clips.write_clip(tmp_path / "clip.mkv", frames, codec="ffv1", fps=10)
    grey = np.ascontiguousarray(frames[:, :, 2:18, :1])
    made = small.generate(3, init=grey, num=2)
    assert made.shape == (2, 2, 16, 16, 1), "as much as is left of a window"
    alike(small.generate(3, init=path, num=2), made)
    alike(small.generate(3, init=grey[-2:]), made[:1])
    assert np.abs(made.astype(int) - small.generate(3, init=grey[:2], num=2)).max() > 1
    assert small.generate(3, init=grey[:1]).shape == (1, 3, 16, 16, 1), "a picture that begins to move"
    assert small.generate(3, init=grey, frames=5).shape == (1, 5, 16, 16, 1)

    asked = []
    monkeypatch.setattr(video_generator, "generated", lambda *given: asked.append(given[4:]) or given[4])
    small.generate(3, init=grey)
    np.testing.assert_allclose(asked[0][0][0, :, 0, 0, 0], [100 / 127.5 - 1, 110 / 127.5 - 1, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(asked[0][1], [[1, 1, 0, 0]])


def test_latents_go_on_from_given_frames(monkeypatch):
    """Two frames share their latents: of one frame two are made, and of three the last two are seen."""
    options = {"denoiser_options": {"widths": (32, 32)}, "codec_patch": 2, "codec_widths": (8, 8)}
    drawn = generator("latent_video_gen", options)
    frames = np.repeat(np.arange(100, 130, 10, dtype=np.uint8), 16 * 16).reshape(3, 16, 16, 1)
    alike(drawn.generate(3, init=frames), drawn.generate(3, init=frames[1:]))
    assert drawn.generate(3, init=frames, frames=3).shape == (1, 3, 16, 16, 1)
    asked = []
    monkeypatch.setattr(video_generator, "generated", lambda *given: asked.append(given[4:]) or given[4])
    drawn.generate(3, init=frames[:1])
    np.testing.assert_allclose(asked[0][0][0, :, 0, 0, 0], [100 / 127.5 - 1, 100 / 127.5 - 1, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(asked[0][1], [[1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"num": 0}, "0 clips cannot be drawn; ask for 1 or more"),
        ({"frames": 0}, "clips of 0 frames cannot be drawn; ask for 1 or more"),
        ({"steps": 0}, "0 steps make no clip; give 1 or more"),
        ({"guidance": 0.5}, "guidance is 0.5; it must be 1, which is none, or more"),
        ({"guidance": float("nan")}, "guidance is nan; it must be 1"),
        ({"sampler": "ddim"}, "no sampler is called 'ddim'; there are euler, heun"),
        ({"classes": [3, 12]}, "no class is called '12'; did you mean"),
        ({"classes": [3, 3, 7]}, "small draws 2 things at most in a clip; 3 were asked for"),
        ({"classes": "three sevn"}, "no class is called 'sevn'; did you mean seven"),
        ({"init": np.zeros((0, 16, 16, 1), np.uint8)}, "a video without frames is too short for small to go on from"),
        ({"init": np.zeros((2, 12, 16, 1), np.uint8)}, "frames of 12x16 do not divide by 8; resize or crop them"),
        ({"init": np.zeros((2, 16, 16, 1))}, "a context is uint8"),
    ],
)
def test_a_mistake_is_told(small, asked, words):
    with pytest.raises(UserError, match=words):
        small.generate(**asked)


def test_one_that_takes_no_frames_says_so():
    alone = generator(known_frames=0)
    with pytest.raises(UserError, match="small goes on from no frames; leave out the video"):
        alone.generate(init=np.zeros((2, 16, 16, 1), np.uint8))
    with pytest.raises(UserError, match="small goes on from no frames; ask for 4 at most"):
        alone.generate(frames=5)


def test_what_is_not_a_number_is_told():
    broken = generator()
    for leaf in jax.tree.leaves(nnx.state(broken.model), is_leaf=lambda value: isinstance(value, nnx.Param)):
        leaf.set_value(leaf[...] * np.nan)
    with pytest.raises(UserError, match="clip 0 is not a number; load small anew, or in float32, or ask for less"):
        broken.generate()


@pytest.fixture
def command(small, monkeypatch):
    """The command, to whose question for a model the small one answers."""
    monkeypatch.setattr(registry, "card", lambda name: small.card)
    monkeypatch.setattr("zoo.predictor.load", lambda name: small)
    return lambda *words: generate.main(list(map(str, words)))


def pictures(path) -> np.ndarray:
    """The frames of a GIF or WebP, uint8 [T, H, W, 3]."""
    with Image.open(path) as moving:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(moving)])


def test_the_command_writes_each_format(command, small, tmp_path, capsys):
    made = small.generate("3 7", num=4, seed=2)
    grid = np.full((4, 34, 34), 96)
    for place, clip in enumerate(made):
        row, column = divmod(place, 2)
        grid[:, row * 17 : row * 17 + 16, column * 17 : column * 17 + 16] = clip[..., 0]
    for suffix, tolerance in ((".gif", 8), (".webp", 0), (".mp4", 60)):
        out = tmp_path / f"grid{suffix}"
        command("--digits", 3, 7, "--num", 4, "--seed", 2, "--out", out)
        assert capsys.readouterr().err == f"4 clips of 4 frames; wrote {out}\n"
        frames = iio.imread(out, index=None) if suffix == ".mp4" else pictures(out)
        assert frames.shape == (4, 68, 68, 3)
        assert np.abs(frames[:, ::2, ::2, 0].astype(int) - grid).mean() <= tolerance
    command("--digits", "three", "seven", "--num", 4, "--seed", 2, "--out", tmp_path / "strip.png")
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    np.testing.assert_array_equal(strip[17:33, 34:50, 0], made[1, 2, ..., 0])


def test_the_command_goes_on_with_a_clip(command, tmp_path):
    path = clips.write_clip(tmp_path / "clip.mkv", np.zeros((8, 16, 16, 3), np.uint8), codec="ffv1", fps=10)
    command("--init", path, "--frames", 6, "--num", 1, "--out", tmp_path / "on.webp")
    assert pictures(tmp_path / "on.webp").shape == (6, 34, 34, 3)


def test_the_command_tells_mistakes(command, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"grid.avi: no encoder writes that; give .gif, .webp, .mp4, .png"):
        command("--out", tmp_path / "grid.avi")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UserError, match=r"this installation has no encoder for .webp; give .gif, .mp4, .png"):
        command("--out", tmp_path / "grid.webp")
    with pytest.raises(UserError, match="there is no folder"):
        command("--out", tmp_path / "no" / "grid.gif")
    with pytest.raises(UserError, match=r"none.mp4"):
        command("--init", tmp_path / "none.mp4", "--out", tmp_path / "grid.gif")
    monkeypatch.undo()
    with pytest.raises(UserError, match="i3d_kinetics400 is made for classification; zoo generate takes a model for"):
        generate.main(["--model", "i3d_kinetics400", "--out", str(tmp_path / "grid.gif")])


def test_a_model_that_nobody_trained_yet_is_no_unknown_one(tmp_path, monkeypatch):
    publish.cards()  # reads experiments' files, some of which ask for published models
    monkeypatch.setattr(registry, "checkpoints_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=f"{NAME} is not trained yet; zoo train --model {NAME}"):
        generate.main(["--out", str(tmp_path / "grid.gif")])
    with pytest.raises(UserError, match="no model is called 'video_gan'"):
        generate.main(["--model", "video_gan", "--out", str(tmp_path / "grid.gif")])


@pytest.mark.slow
def test_a_run_is_published_and_asked(tmp_path, monkeypatch):
    config = dataclasses.replace(
        configs.experiment(NAME, "pixels"),
        options=OPTIONS,
        task_options={"clip_shape": (4, 16, 16, 1), "know_frames": 0.5, "shown": ((1,), (2, 3)), "num_steps": 2},
        dataset_options={"num_frames": 4, "size": 16},
        steps=2,
        batch_size=2,
        evaluation_items=4,
        evaluate_every=2,
    )
    train.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "samples-000002.gif").is_file()
    monkeypatch.setitem(CARDS[NAME], "preprocessing", DRAWING)
    publish.main([str(tmp_path / "run"), "--name", NAME, "--out", str(tmp_path / "cards")])
    monkeypatch.setattr(registry, "checkpoints_folder", lambda: tmp_path / "cards")
    loaded = zoo.load(NAME)
    assert loaded.labels == WORDS
    assert loaded.card.flops > 1e6
    _, model = publish.trained(tmp_path / "run")
    made = loaded.generate("two", steps=1, guidance=1.0, seed=4)
    key = jax.random.key(4)
    for number in (0, 0, 0):  # clip, layer, window
        key = jax.random.fold_in(key, number)
    noise = jax.random.normal(key, (1, 4, 16, 16, 1))
    clean = model(noise, jnp.zeros(1), jnp.eye(10)[2:3], jnp.zeros((1, 4)))
    np.testing.assert_allclose(made, (np.clip(clean, -1, 1) + 1) * 127.5, atol=2)
