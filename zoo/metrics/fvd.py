"""Fréchet and kernel video distance: how alike two sets of clips are to a network that knows human actions.

Unterthiner et al. 2018, "Towards Accurate Generative Models of Video", arXiv:1812.01717. The features are those of the
published FVD: I3D's logits of Kinetics-400, averaged over time, of clips at 224x224 in [-1, 1]. Every clip is stretched
to that size by bilinear interpolation without antialiasing between pixel centres, as the ports to PyTorch do; the
original, of TensorFlow 1, interpolates between upper left corners.
"""

import functools
import hashlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import hub
from zoo.errors import UserError

NETWORK = "i3d_kinetics400"
SIZE = 224


def features(clips: np.ndarray, batch_size: int = 4) -> np.ndarray:
    """I3D's logits float64 [N, 400] of clips uint8 [N, T, H, W, 1 or 3], T from 9 up; about a second a clip on 2 cores.

    What was once computed is kept in the cache's `features/`, under the clips' hash: a reference set is seen once.

    Raises:
      UserError: the clips are not of this kind, or the network's weights cannot be had.
    """
    _check(clips)
    network = _network()
    key = hashlib.sha256(repr((clips.shape, sorted(network.card.source.files.items()))).encode())
    key.update(np.ascontiguousarray(clips).data)
    kept = hub.cache_folder() / "features" / key.hexdigest()[:24]
    if not kept.exists():
        weights = nnx.split(network.model)
        found = []
        for start in range(0, len(clips), batch_size):
            batch = clips[start : start + batch_size]
            # Batches of one shape compile once.
            whole = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
            found.append(np.asarray(_logits(*weights, whole), np.float64)[: len(batch)])
        with hub.new_folder(kept, replace=False, way_out="set ZOO_CACHE to a folder that can be written") as new:
            new.mkdir()
            np.save(new / "logits.npy", np.concatenate(found))
    return np.load(kept / "logits.npy")


@functools.cache
def _network() -> Any:
    from zoo.predictor import load

    return load(NETWORK)


@jax.jit(static_argnums=0)
def _logits(graph: nnx.GraphDef, state: nnx.State, clips: jax.Array) -> jax.Array:
    return nnx.merge(graph, state)(for_network(clips))


def for_network(clips: jax.Array) -> jax.Array:
    """uint8 [N, T, H, W, 1 or 3] to what I3D sees, float32 [N, T, 224, 224, 3] in [-1, 1]."""
    shape = (*clips.shape[:2], SIZE, SIZE, clips.shape[-1])
    x = jax.image.resize(clips.astype(jnp.float32), shape, "bilinear", antialias=False) / 127.5 - 1
    return jnp.broadcast_to(x, (*shape[:-1], 3))


def _check(clips: np.ndarray) -> None:
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] not in (1, 3):
        raise UserError(
            f"clips are uint8 [clips, time, height, width, 1 or 3], not {clips.dtype} {list(clips.shape)}; "
            "give pixels from 0 to 255"
        )
    if len(clips) < 2 or clips.shape[1] < 9:
        raise UserError(f"{len(clips)} clips of {clips.shape[1]} frames are too few: 2 clips and 9 frames at least")


def fvd(clips: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet video distance of two sets of clips as in `features`; 0 for the same set, in squared units of a logit."""
    return frechet_distance(features(clips), features(reference))


def kvd(clips: np.ndarray, reference: np.ndarray) -> float:
    """Kernel video distance of two sets of clips as in `features`."""
    return kernel_distance(features(clips), features(reference))


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2). All is float64; the roots are of symmetric matrices, so that
    singular ones do no harm. A warning tells of sets that are too small.

    Args:
      ours, theirs: [N, D] and [M, D]; N and M at least 2, and well above D for a figure to trust.

    Raises:
      UserError: a feature is not a number.
    """
    ours, theirs = _finite(ours), _finite(theirs)
    between = np.square(ours.mean(axis=0) - theirs.mean(axis=0)).sum()
    first, second = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (ours, theirs))
    fewest, dimension = min(len(ours), len(theirs)), ours.shape[1]
    if fewest <= dimension:
        least = np.trace(first) / len(ours) + np.trace(second) / len(theirs)
        warnings.warn(
            f"a Fréchet distance of {len(ours)} and {len(theirs)} clips by {dimension} features is too large, on "
            f"average by {least:.4g} through the means alone and more through the covariances; give {2 * dimension}",
            stacklevel=2,
        )
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second @ root)
    return float(between + np.trace(first) + np.trace(second) - 2 * np.sqrt(product.clip(0)).sum())


def kernel_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Squared maximum mean discrepancy by the kernel (x . y / D + 1)^3, without bias: about 0, or below, for like sets.

    Args:
      ours, theirs: features [N, D] and [M, D], N and M at least 2.

    Raises:
      UserError: a feature is not a number.
    """
    ours, theirs = _finite(ours), _finite(theirs)

    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        table = similarity(a, a)
        return (table.sum() - np.trace(table)) / (len(a) * (len(a) - 1))

    return float(within(ours) + within(theirs) - 2 * similarity(ours, theirs).mean())


def _finite(features: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise UserError(f"the features of clip {wrong[0]} are not numbers; leave out such clips ({len(wrong)} in all)")
    return np.asarray(features, np.float64)
