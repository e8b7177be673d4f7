"""A video as it comes: frames are pushed one at a time, and the answer so far is there after each."""

import dataclasses
import functools
import io
import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.data.transforms import Preprocessing
from zoo.errors import UserError, refused_by_system
from zoo.registry import ModelCard

type Answer = list[tuple[str, float]]


class Stream:
    """What a recurrent classifier makes of a video so far; `Classifier.stream()` makes one.

        with predictor.stream() as stream:
            for frame in camera:
                stream.push(frame)

    Frames are uint8 RGB [H, W, 3] at the rate of the card's preprocessing, `frame_rate` a second. Memory and time per
    frame do not grow. With `streams` given, so many videos go side by side through one compiled call, and frames are
    uint8 [streams, H, W, 3].

    Attributes:
      frame_rate: frames a second that the model expects.
      frames: how many were pushed.
      logits: float32 [streams or 1, classes] of all that was seen, None before the first step. A model whose CNN sees
        several frames at a time takes a step when it has them together.
    """

    def __init__(self, card: ModelCard, model: Any, preprocess: Preprocessing, streams: int | None):
        if streams is not None and streams < 1:
            raise UserError(f"streams={streams}: give 1 or more")
        self.frame_rate, self.frames = preprocess.frame_rate, 0
        self.logits: np.ndarray | None = None
        self._card, self._preprocess, self._streams = card, preprocess, streams
        self._graph, self._weights = nnx.split(model)
        self._window = model.window
        self._precision = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)))
        self._start = model.initial_state(streams or 1, self._precision)
        self._state = jax.tree.map(jnp.copy, self._start)
        self._waiting: list[np.ndarray] = []
        self._last: tuple[Any, np.ndarray] | None = None  # the latest step's frames, and the state before it
        self._revises = getattr(model, "revises_at_end", False)
        self._size: tuple[int, int] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the state; the last `logits` stay."""
        self._closed = True
        self._state, self._last, self._waiting = None, None, []

    def push(self, frames: np.ndarray) -> Answer | list[Answer]:
        """Takes the next frame, or with `streams` the next frame of each.

        Returns:
          (label, probability) pairs, best first, of all that was seen, or one such list for each stream; empty before
          the first step.

        Raises:
          UserError: the stream is closed, or the frame is not uint8 [H, W, 3] of the size of those before.
        """
        self._check_open()
        frames = self._checked(np.asarray(frames))
        self._waiting.append(np.stack([self._preprocess.resize(np.ascontiguousarray(frame)) for frame in frames]))
        self.frames += 1
        if len(self._waiting) == self._window:
            clips = np.stack(self._waiting, axis=1)
            self._last = (self._state, clips) if self._revises else None
            self._state = self._step(self._state, clips, ends=False)
            self._waiting = []
        return self.answer()

    def finish(self) -> Answer | list[Answer]:
        """The answer if the video ends here: what waits for a full step is filled up with its last frame.

        It changes nothing else: more frames may come.
        """
        self._check_open()
        if self._waiting:
            filled = self._waiting + [self._waiting[-1]] * (self._window - len(self._waiting))
            self._step(self._state, np.stack(filled, axis=1), ends=True)
        elif self._last:
            self._step(*self._last, ends=True)
        return self.answer()

    def answer(self) -> Answer | list[Answer]:
        """As `push` returns it."""
        if self.logits is None:
            return [] if self._streams is None else [[] for _ in range(self._streams)]
        answers = [_best_first(self._card.labels, logits) for logits in self.logits]
        return answers[0] if self._streams is None else answers

    def reset(self, stream: int) -> None:
        """Begins one of several streams anew; all others go on."""
        self._check_open()
        if self._streams is None or not 0 <= stream < self._streams:
            raise UserError(f"there is no stream {stream} here; there are {self._streams or 1}, counted from 0")
        if self._waiting:
            waiting = f"{len(self._waiting)} of {self._window} frames of a step are there"
            raise UserError(f"stream {stream} can begin anew only between two steps; {waiting}")
        self._state = jax.tree.map(lambda now, start: now.at[stream].set(start[stream]), self._state, self._start)

    def _step(self, state: Any, clips: np.ndarray, *, ends: bool) -> Any:
        """Sets the logits; returns the state after a step."""
        mean, std = (np.asarray(value, np.float32) for value in (self._preprocess.mean, self._preprocess.std))
        ending = {"ends": ends} if self._revises else {}
        state, logits = _step(self._graph, self._weights, state, clips, mean, std, precision=self._precision, **ending)
        self.logits = np.asarray(logits)
        return state

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("this stream is closed; make another with predictor.stream()")

    def _checked(self, frames: np.ndarray) -> np.ndarray:
        """[streams or 1, H, W, 3]."""
        wanted = "[height, width, 3]" if self._streams is None else f"[{self._streams}, height, width, 3]"
        frames = frames[None] if self._streams is None else frames
        fits = frames.ndim == 4 and frames.shape[-1] == 3 and len(frames) == (self._streams or 1)
        if frames.dtype != np.uint8 or not fits or 0 in frames.shape:
            shape = list(frames.shape[self._streams is None :])
            raise UserError(f"a frame is uint8 {wanted} with RGB values from 0 to 255, not {frames.dtype} {shape}")
        height, width = frames.shape[1:3]
        if self._size not in (None, (height, width)):
            was = "x".join(map(str, self._size or ()))
            raise UserError(
                f"frame {self.frames + 1} is {height}x{width} and those before are {was}; begin a new stream"
            )
        self._size = height, width
        return frames

    def save(self, path: str | os.PathLike) -> None:
        """Writes all that was seen into a file, from which `predictor.stream(resume=path)` goes on.

        Raises:
          UserError: the stream is closed, or the file cannot be written; what was there before then stays.
        """
        self._check_open()
        arrays = {f"state {place}": np.asarray(leaf, np.float32) for place, leaf in enumerate(_leaves(self._state))}
        if self._last:
            before, arrays["last"] = self._last
            arrays |= {f"before {place}": np.asarray(leaf, np.float32) for place, leaf in enumerate(_leaves(before))}
        arrays |= {f"waiting {place}": frames for place, frames in enumerate(self._waiting)}
        arrays |= {} if self.logits is None else {"logits": self.logits}
        about = {"model": _fingerprint(self._card), "streams": self._streams, "frames": self.frames, "size": self._size}
        arrays["about"] = np.array(json.dumps(about))
        held = io.BytesIO()
        np.savez(held, **arrays)  # pyright: ignore[reportArgumentType]
        path = Path(path)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            partial.write_bytes(held.getvalue())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {refused_by_system(error) or error}") from error

    def resume(self, path: str | os.PathLike) -> None:
        """Goes on from what `save` wrote.

        Raises:
          UserError: the file is missing, damaged, or of another model or number of streams.
        """
        try:
            with np.load(path) as file:
                arrays = dict(file)
            about = json.loads(str(arrays["about"]))
        except FileNotFoundError as error:
            raise UserError(f"there is no file {os.fspath(path)!r}; check the path") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{os.fspath(path)} is not the state of a stream, or is damaged: {error}") from error
        if about["model"] != _fingerprint(self._card):
            theirs = about["model"].split()[0]
            raise UserError(
                f"{os.fspath(path)} is the state of {theirs} or other weights, not of this {self._card.name}"
            )
        if about["streams"] != self._streams:
            raise UserError(f"{os.fspath(path)} was saved with streams={about['streams']}, not {self._streams}")
        leaves, structure = jax.tree.flatten(self._start)

        def restored(name: str) -> Any:
            stored = [jnp.asarray(arrays[f"{name} {place}"], leaf.dtype) for place, leaf in enumerate(leaves)]
            return jax.tree.unflatten(structure, stored)

        self._state = restored("state")
        self._last = (restored("before"), arrays["last"]) if "last" in arrays else None
        self._waiting = [arrays[f"waiting {place}"] for place in range(about["frames"] % self._window)]
        self.logits, self.frames = arrays.get("logits"), about["frames"]
        self._size = tuple(about["size"]) if about["size"] else None


def _fingerprint(card: ModelCard) -> str:
    """The model's name, and what its state depends on."""
    return f"{card.name} {json.dumps([card.arch, card.options, dataclasses.asdict(card.source)], sort_keys=True)}"


def _best_first(labels: tuple[str, ...], logits: np.ndarray) -> Answer:
    powers = np.exp(logits - logits.max(), dtype=np.float64)
    probabilities = powers / powers.sum()
    return [(labels[index], float(probabilities[index])) for index in np.argsort(-probabilities, kind="stable")]


_leaves = jax.tree.leaves


@functools.partial(jax.jit, static_argnames=("graph", "precision", "ends"))
def _step(
    graph: nnx.GraphDef,
    weights: nnx.State,
    state: Any,
    clips: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    *,
    precision: Any,
    **ending: bool,
) -> tuple[Any, jax.Array]:
    """The state after a step of uint8 clips `[streams, window, H, W, 3]`, and the logits `[streams, classes]`."""
    x = (clips.astype(jnp.float32) - mean) / std
    model: Any = nnx.merge(graph, weights)
    logits, state = model.along(x.astype(precision), state, **ending)
    return state, logits[:, -1].astype(jnp.float32)
