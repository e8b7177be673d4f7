"""Names, cards, and that every published card tells the truth about its network."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import tiny
from zoo import hub, registry
from zoo.errors import UserError
from zoo.registry import ModelCard, WeightSource

SOURCE = WeightSource("url", {"weights.npz": "0" * 64}, convert="tiny", url="https://example.org/weights.npz")


def test_a_card_survives_its_file(cards):
    card = tiny.card(SOURCE, labels=("naïve", "日本"))
    tiny.publish(cards, card)
    assert zoo.card(card.name) == card
    assert "日本" in (cards / card.name / "card.json").read_text(encoding="utf-8")
    assert ModelCard.from_json(card.to_json()) == card


def test_names_and_wildcards(cards):
    for name in ("tiny_colours", "tiny_shapes", "small_shapes"):
        tiny.publish(cards, tiny.card(SOURCE, name=name))
    (cards / "not_a_model").mkdir()
    assert zoo.list_models() == ["small_shapes", "tiny_colours", "tiny_shapes"]
    assert zoo.list_models("*shapes") == ["small_shapes", "tiny_shapes"]
    assert zoo.list_models("tiny_?hapes") == ["tiny_shapes"]
    assert zoo.list_models("nothing*") == []


def test_unknown_names(cards):
    with pytest.raises(UserError, match="no model is called 'tiny'; there are none"):
        zoo.card("tiny")
    tiny.publish(cards, tiny.card(SOURCE))
    with pytest.raises(UserError, match="no model is called 'tiny_colour'; did you mean tiny_colours"):
        zoo.card("tiny_colour")
    with pytest.raises(UserError, match="no model is called 'zzz'; there are tiny_colours"):
        zoo.card("zzz")
    with pytest.raises(UserError, match="no architecture is called 'i4d'; did you mean i3d"):
        zoo.create("i4d")
    for path in ("../tiny_colours", "/tiny_colours", ""):
        with pytest.raises(UserError, match="no model is called"):
            zoo.card(path)


def test_create(cards):
    first, again, other = (zoo.create("tiny", num_classes=7, seed=seed) for seed in (1, 1, 2))
    assert first.layers[1].kernel.shape == (5, 7)
    np.testing.assert_array_equal(first.layers[0].kernel[...], again.layers[0].kernel[...])
    assert not np.array_equal(first.layers[0].kernel[...], other.layers[0].kernel[...])
    assert zoo.create("tiny").layers[1].kernel.shape == (5, 3)
    with pytest.raises(UserError, match="no option of tiny is called 'classes'; did you mean num_classes"):
        zoo.create("tiny", classes=7)


def test_an_architecture_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_ARCHITECTURES", {})

    def net(*, rngs):
        return nnx.Linear(1, 1, rngs=rngs)

    assert registry.register_model(net) is net
    with pytest.raises(ValueError, match="two architectures are called 'net'"):
        registry.register_model(net)


PUBLISHED = registry.list_models()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_card(name: str):
    card = zoo.card(name)
    assert card.name == name
    model = nnx.eval_shape(lambda: zoo.create(card.arch, **card.options))
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert card.parameters == sum(leaf.size for leaf in parameters)
    assert card.flops > 0
    assert card.protocol
    assert "Apache" in card.licence or "MIT" in card.licence
    assert len(set(card.labels)) == len(card.labels)
    digests = [*card.source.files.values(), *filter(None, [card.source.wheel_sha256])]
    assert digests
    # At an address, as much as its publisher tells.
    known = "[0-9a-f]{64}|[0-9a-f]{8}|" if card.source.kind == "url" else "[0-9a-f]{64}"
    assert all(re.fullmatch(known, digest) for digest in digests)
    assert "SHA-256" in card.attribution or all(len(digest) == 64 for digest in digests)
    wanted = {
        "checkpoint": set(),
        "package": {"convert", "requirement", "wheel_sha256"},
        "url": {"convert", "url"},
    }[card.source.kind]
    given = {field for field, value in dataclasses.asdict(card.source).items() if value is not None}
    # A checkpoint may lie over another, and a package may hold what is used as it is.
    own = {"checkpoint": {"beneath"}, "package": {"kept"}, "url": set()}[card.source.kind]
    assert set(card.source.kept or ()) <= set(card.source.files)
    assert given - own == {"kind", "files"} | wanted


@pytest.mark.parametrize("name", [name for name in PUBLISHED if registry.card(name).source.kind == "checkpoint"])
def test_published_checkpoint(name: str):
    """Whole, restorable, and no file too large for git."""
    card = zoo.card(name)
    folder = hub.fetch(card).parent
    there = {str(path.relative_to(folder)) for path in (folder / "weights").rglob("*") if path.is_file()}
    assert there == set(card.source.files)
    assert max((folder / file).stat().st_size for file in there) < 20e6
    model = nnx.eval_shape(lambda: zoo.create(card.arch, **card.options))
    restored = hub.load_weights(model, card)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(hub.weights_of(restored)))
