"""Altered copies of clips as they go about: at another pace, cropped, mirrored, captioned and strongly compressed."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

_CHANCE = 0.5  # of each alteration
_SMALLEST = 0.6  # part of each side, and of the time, that is left
_BAR = 0.08, 0.25  # least and largest part of the height that a caption covers
_STROKE = 4  # pixels of what stands for letters
_BLOCK = 8  # pixels of a side, as in JPEG and the older video codecs
_STEPS = 8.0, 64.0  # finest and coarsest quantisation of a block's mean, times 8


def altered(video: Num[jax.Array, "time height width 3"], key: jax.Array) -> Float[jax.Array, "time height width 3"]:
    """A copy of a clip, pixels from 0 to 255; each alteration is there with a chance of one half."""
    x = video.astype(jnp.float32)
    alterations = (_paced, _cropped, _mirrored, _captioned, _compressed)
    for alter, each in zip(alterations, jax.random.split(key, len(alterations)), strict=True):
        for_chance, own = jax.random.split(each)
        x = jnp.where(jax.random.bernoulli(for_chance, _CHANCE), alter(x, own), x)
    return x


def _paced(x: jax.Array, key: jax.Array) -> jax.Array:
    """A stretch of the clip, drawn out to its length."""
    share, place = _part(key)
    times = (place + share * (jnp.arange(len(x)) + 0.5) / len(x)) * len(x)
    return x[times.astype(int)]


def _cropped(x: jax.Array, key: jax.Array) -> jax.Array:
    """A part of the picture, as large as the whole was; height and width each lose a part of their own."""
    (top, height), (left, width) = ((place, share) for share, place in map(_part, jax.random.split(key)))
    size = jnp.array(x.shape[1:3])
    scale = 1 / jnp.array([height, width])
    return jax.image.scale_and_translate(
        x, x.shape, (1, 2), scale, -jnp.array([top, left]) * size * scale, "linear", antialias=False
    )


def _part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How much of something is left, and where that begins, as shares of the whole."""
    for_share, for_place = jax.random.split(key)
    share = jax.random.uniform(for_share, minval=_SMALLEST)
    return share, jax.random.uniform(for_place) * (1 - share)


def _mirrored(x: jax.Array, key: jax.Array) -> jax.Array:
    del key  # there is one way to do it
    return x[:, :, ::-1]


def _captioned(x: jax.Array, key: jax.Array) -> jax.Array:
    """White strokes on a black bar along the lower or upper edge; what they say changes nothing."""
    for_bar, for_edge, for_letters, for_length = jax.random.split(key, 4)
    height, width = x.shape[1:3]
    down = jnp.arange(height) / height
    down = jnp.where(jax.random.bernoulli(for_edge), 1 - down, down)[:, None]
    bar = jax.random.uniform(for_bar, minval=_BAR[0], maxval=_BAR[1])
    coarse = jax.random.bernoulli(for_letters, 0.4, (-(-height // _STROKE), -(-width // _STROKE)))
    letters = coarse[jnp.arange(height) // _STROKE][:, jnp.arange(width) // _STROKE]
    from_middle = jnp.abs(jnp.arange(width) / width - 0.5) * 2
    written = (jnp.abs(down - bar / 2) < bar / 4) & (from_middle < jax.random.uniform(for_length, minval=0.3))
    return jnp.where((down < bar)[..., None], jnp.where((letters & written)[..., None], 255.0, 0.0), x)


def _compressed(x: jax.Array, key: jax.Array) -> jax.Array:
    """What few bits leave: of each block the cosine transform in coarse steps, coarser for finer detail."""
    height, width = x.shape[1:3]
    fill = ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
    padded = jnp.pad(x, fill, mode="edge")
    time, rows, columns, channels = padded.shape
    blocks = padded.reshape(time, rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK, channels)
    waves = jnp.einsum("thiwjc,ki,lj->thkwlc", blocks, _COSINES, _COSINES)
    detail = 1 + np.add.outer(np.arange(_BLOCK), np.arange(_BLOCK)) / 2
    steps = jax.random.uniform(key, minval=_STEPS[0], maxval=_STEPS[1]) * detail[:, None, :, None]
    waves = jnp.round(waves / steps) * steps
    blocks = jnp.einsum("thkwlc,ki,lj->thiwjc", waves, _COSINES, _COSINES)
    return blocks.reshape(padded.shape)[:, :height, :width].clip(0, 255)


def _cosines() -> np.ndarray:
    """float32 [8, 8]: the orthonormal cosine transform of type II, a wave a row."""
    numbers = np.arange(_BLOCK)
    waves = np.cos(np.pi / _BLOCK * (numbers + 0.5) * numbers[:, None]) * np.sqrt(2 / _BLOCK)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


_COSINES = _cosines()
