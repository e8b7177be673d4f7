"""What CTC's logits spell: the likeliest symbol of each step, or the likeliest text by prefix beam search.

Graves et al. 2006, doi:10.1145/1143844.1143891: a text's probability is that of all paths which give it once repeated
symbols are one and blanks, symbol 0, are gone. Hannun et al. 2014, arXiv:1408.2873: a beam of texts, each with the
probability of the paths that end in a blank and of those that do not.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

_NEVER = -jnp.inf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spelt:
    """Texts, the likeliest first.

    Attributes:
      symbols: int32 [B, beams, longest], filled up with 0.
      log_probability: float32 [B, beams]; negative infinity where there are not so many texts.
    """

    symbols: jax.Array
    log_probability: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Which texts there are: a tree of words, letter by letter, in which a space leads back to the root.

    Attributes:
      following: int32 [nodes, classes], the node that a symbol leads to, -1 where no word goes on so; node 0 is the
        root.
      is_end: bool [nodes], where a text may end: at the root and behind each word.
    """

    following: jax.Array
    is_end: jax.Array


def lexicon_of(words: Sequence[str], symbols: Sequence[str]) -> Lexicon:
    """All texts of these words with a space between, spelt in `symbols`, of which the first is the blank."""
    following, is_end = [np.full(len(symbols), -1)], [True]
    for word in words:
        node = 0
        for letter in word:
            symbol = symbols.index(letter)
            if following[node][symbol] < 0:
                following[node][symbol] = len(following)
                following.append(np.full(len(symbols), -1))
                is_end.append(False)
            node = following[node][symbol]
        following[node][symbols.index(" ")], is_end[node] = 0, True
    return Lexicon(jnp.asarray(np.stack(following), jnp.int32), jnp.asarray(is_end))


def greedy(
    logits: Float[jax.Array, "batch steps classes"], steps: Int[jax.Array, " batch"], longest: int
) -> Int[jax.Array, "batch longest"]:
    """What the likeliest path of the first `steps` spells, filled up with 0 and cut off after `longest` symbols."""
    best = jnp.where(jnp.arange(logits.shape[1]) < steps[:, None], jnp.argmax(logits, axis=-1), 0)
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)))
    is_new = (best != 0) & (best != before)
    place = jnp.where(is_new, jnp.cumsum(is_new, axis=1) - 1, longest)  # what does not count falls off the end
    spelt = jnp.zeros((len(best), longest), best.dtype)
    return jax.vmap(lambda row, where, what: row.at[where].set(what, mode="drop"))(spelt, place, best)


@functools.partial(jax.jit, static_argnames=("beams", "longest"))
def beam_search(
    logits: Float[jax.Array, "batch steps classes"],
    steps: Int[jax.Array, " batch"],
    lexicon: Lexicon | None = None,
    *,
    beams: int,
    longest: int,
) -> Spelt:
    """The likeliest texts of `beams` that are followed through the steps; exact if there are no more texts than that.

    Args:
      steps: of each sound, how many of the steps count.
      lexicon: which texts there are; any without one.
      longest: symbols that a text has at most; longer ones are not followed.
    """
    chances = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    if lexicon is None:
        lexicon = Lexicon(jnp.zeros((1, logits.shape[-1]), jnp.int32), jnp.ones(1, bool))
    search = functools.partial(_search, beams=beams, longest=longest)
    return jax.vmap(search, in_axes=(0, 0, None))(chances, steps, lexicon)


def _search(chances: jax.Array, steps: jax.Array, lexicon: Lexicon, *, beams: int, longest: int) -> Spelt:
    """Of one sound: chances `[steps, classes]`."""
    classes = chances.shape[-1]
    first = jnp.arange(beams) == 0  # the empty text; the others are not there yet
    texts = jnp.zeros((beams, longest), jnp.int32)
    lengths, nodes = jnp.where(first, 0, -1), jnp.zeros(beams, jnp.int32)
    in_blank, in_symbol = jnp.where(first, 0.0, _NEVER), jnp.full(beams, _NEVER)

    def step(state, of_step):
        texts, lengths, nodes, in_blank, in_symbol = state
        chance, counts = of_step
        either = jnp.logaddexp(in_blank, in_symbol)
        last = jnp.take_along_axis(texts, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
        stays_blank = either + chance[0]
        stays_symbol = jnp.where(lengths > 0, in_symbol + chance[last], _NEVER)
        # After a blank the same symbol may come again; without one it would be the same.
        repeats = jnp.arange(1, classes) == last[:, None]
        grows = jnp.where(repeats, in_blank[:, None], either[:, None]) + chance[1:]
        leads_to = lexicon.following[nodes]
        grows = jnp.where((lengths < longest)[:, None] & (leads_to[:, 1:] >= 0), grows, _NEVER)

        # What grows into a text that is there already is that text: [text, the text that it is one symbol more of].
        common = (jnp.arange(longest) >= lengths[:, None]) | (texts[:, None] == texts[None])
        is_next = common.all(axis=-1) & (lengths[:, None] == lengths + 1) & (lengths >= 0)
        joins = jnp.where(is_next, grows[:, jnp.maximum(last - 1, 0)].T, _NEVER)
        stays_symbol = jnp.logaddexp(stays_symbol, joins.max(axis=1))  # a text has one text before it
        taken = (is_next[:, :, None] & (jnp.arange(1, classes) == last[:, None, None])).any(axis=0)
        grows = jnp.where(taken, _NEVER, grows)

        totals = jnp.concatenate([jnp.logaddexp(stays_blank, stays_symbol), grows.ravel()])
        _, best = jax.lax.top_k(totals, beams)
        is_grown = best >= beams
        parent = jnp.where(is_grown, (best - beams) // (classes - 1), best)
        symbol = (best - beams) % (classes - 1) + 1
        at_end = (jnp.arange(longest) == lengths[parent][:, None]) & is_grown[:, None]
        is_there = totals[best] > _NEVER
        new = (
            jnp.where(at_end, symbol[:, None], texts[parent]),
            jnp.where(is_there, lengths[parent] + is_grown, -1),
            jnp.where(is_grown, leads_to[parent, symbol], nodes[parent]),
            jnp.where(is_grown, _NEVER, stays_blank[parent]),
            jnp.where(is_grown, totals[best], stays_symbol[parent]),
        )
        return jax.tree.map(functools.partial(jnp.where, counts), new, state), None

    start = texts, lengths, nodes, in_blank, in_symbol
    counts = jnp.arange(len(chances)) < steps
    (texts, _, nodes, in_blank, in_symbol), _ = jax.lax.scan(step, start, (chances, counts))
    totals = jnp.where(lexicon.is_end[nodes], jnp.logaddexp(in_blank, in_symbol), _NEVER)
    totals, order = jax.lax.top_k(totals, beams)
    return Spelt(texts[order], totals)


def spikes(chances: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """At which step each symbol of a text begins on the likeliest path that spells it: int [symbols] (Viterbi).

    Args:
      chances: log-probabilities [steps, classes].
      symbols: int [symbols], none of them 0; there are steps enough for them.
    """
    path = np.zeros(2 * len(symbols) + 1, int)  # a blank around each
    path[1::2] = symbols
    may_skip = np.zeros(len(path), bool)  # the blank between two symbols, if those differ
    may_skip[3::2] = symbols[1:] != symbols[:-1]
    best = np.full(len(path), -np.inf)
    best[:2] = chances[0, path[:2]]
    moves = np.zeros((len(chances), len(path)), int)
    for step in range(1, len(chances)):
        come = np.stack([best, np.append(-np.inf, best[:-1]), np.append([-np.inf] * 2, best)[: len(path)]])
        come[2, ~may_skip] = -np.inf
        moves[step] = come.argmax(axis=0)
        best = come.max(axis=0) + chances[step, path]
    place = len(path) - 1 if len(path) == 1 or best[-1] >= best[-2] else len(path) - 2
    found = np.zeros(len(symbols), int)
    for step in range(len(chances) - 1, -1, -1):
        if place % 2:
            found[place // 2] = step
        place -= moves[step, place]
    return found
