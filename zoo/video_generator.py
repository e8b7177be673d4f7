"""A published network that draws clips, asked for what they are to show and what they are to begin with."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.data.transforms import Preprocessing
from zoo.errors import UserError
from zoo.given_frames import given_frames
from zoo.predictor import Predictor
from zoo.registry import ModelCard, unknown
from zoo.tasks.classification import to_float
from zoo.tasks.generation import FlowMatching, generated, to_pixels

_BATCH = 8  # clips that are drawn side by side


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What a card states of a generator's clips, and how they are drawn unless something else is asked for.

    Attributes:
      num_frames, size, frame_rate: of the clips that it was trained on, squares of `size` pixels.
      known_frames: how many first frames of such a clip it takes as given, at most; 0 for none.
      most_classes: how many things such a clip shows, at most.
      layered: things that are asked for together are drawn each in a clip of its own and laid over each other, so that
        the brightest shows: for networks that learnt from clips made in that way, and draw one thing better than two.
        Not where the clips go on from frames, which show all of them at once.
      time_mean, steps, sampler, guidance: as `FlowMatching` has them.
    """

    num_frames: int
    size: int
    frame_rate: float
    known_frames: int
    most_classes: int
    layered: bool
    time_mean: float
    steps: int
    sampler: str
    guidance: float


class VideoGenerator(Predictor):
    """Draws clips of the classes that it knows, from nothing or from first frames, and as long as is asked for.

    Attributes:
      preprocess: how clips are drawn, and how the frames of a video file are resized and cropped.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Drawing(**card.preprocessing)

    def generate(
        self,
        classes: Any = None,
        *,
        num: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        init: Any = None,
        frames: int | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> np.ndarray:
        """Clips that show what is asked for, uint8 [num, frames, H, W, channels].

        Args:
          classes: what each clip is to show: a class by its number or name, several of them, or a text of such
            ("three seven"); anything without. Several are drawn apart where the card says `layered`.
          seed: clip i depends on it and on i, to rounding, and not on `num`.
          steps, guidance, sampler: from 1 up; from 1 (none) up; "euler" or "heun". The card's where not given.
          init: what the clips go on from: uint8 [T, H, W, 1 or 3], used as it is, or a video as a path, URL, bytes or
            file object. One frame is a picture that begins to move. The clips begin after it.
          frames: the clips' length; what the network sees at once without. Longer ones are drawn window by window, each
            of which begins with the last frames of the one before.
          progress: called with the share, 0 to 1, that is done.

        Raises:
          UserError: there is no such class, or too many are asked for, the video cannot be read or is too short, a
            number is out of range, sides do not fit, or a clip is not a number.
        """
        if num < 1:
            raise UserError(f"{num} clips cannot be drawn; ask for 1 or more")
        shown, most = class_counts(classes, self.labels), self.preprocess.most_classes
        if shown.sum() > most:
            raise UserError(f"{self.card.name} draws {most} things at most in a clip; {shown.sum():.0f} were asked for")
        counts = np.repeat(shown[None], num, axis=0)
        sampling = {"num_steps": steps, "guidance": guidance, "sampler": sampler}
        return self.draw(counts, seed=seed, init=init, frames=frames, progress=progress, **sampling)

    def draw(
        self,
        counts: np.ndarray,
        *,
        seed: int,
        init: Any = None,
        frames: int | None = None,
        progress: Callable[[float], None] = lambda share: None,
        **sampling: Any,
    ) -> np.ndarray:
        """A clip for each row of class counts float32 [N, classes]; the rest is as in `generate`.

        Args:
          sampling: `num_steps`, `guidance` and `sampler`; the card's for None.
        """
        asked = self._sampling(sampling)
        model: Any = self.model
        begin = np.zeros((0, *asked.clip_shape[1:]), np.uint8) if init is None else self._known(init, model.channels)
        length = asked.clip_shape[0] - len(begin) if frames is None else frames
        if length < 1:
            raise UserError(f"clips of {length} frames cannot be drawn; ask for 1 or more")
        if length > asked.clip_shape[0] and not self.preprocess.known_frames:
            raise UserError(f"{self.card.name} goes on from no frames; ask for {asked.clip_shape[0]} at most")
        layers, clip_of = (
            _layers(counts) if self.preprocess.layered and init is None else (counts, np.arange(len(counts)))
        )
        keys = _keys(seed, clip_of)
        batch, done = min(_BATCH, len(layers)), []

        def told(start: int) -> Callable[[float], None]:
            return lambda share: progress(min(1, (start + batch * share) / len(layers)))

        for start in range(0, len(layers), batch):
            # The last ones are filled up to the shape that is compiled.
            places = np.arange(start, start + batch) % len(layers)
            made = self._windows(asked, layers[places], keys[places], begin, length, told(start))
            wrong = np.flatnonzero(~np.isfinite(made).all(axis=(1, 2, 3, 4)))
            if len(wrong):
                way_out = f"load {self.card.name} anew, or in float32, or ask for less guidance"
                raise UserError(f"clip {clip_of[places[wrong[0]]]} is not a number; {way_out}")
            done.append(to_pixels(made))
        drawn = np.concatenate(done)[: len(layers)]
        return np.maximum.reduceat(drawn, np.searchsorted(clip_of, np.arange(len(counts))))

    def _sampling(self, given: dict[str, Any]) -> FlowMatching:
        model, sees = self.model, self.preprocess
        own = {"num_steps": sees.steps, "guidance": sees.guidance, "sampler": sees.sampler}
        return FlowMatching(
            clip_shape=(sees.num_frames, sees.size, sees.size, model.channels),  # pyright: ignore[reportAttributeAccessIssue]
            num_classes=len(self.labels),
            time_mean=sees.time_mean,
            **own | {name: value for name, value in given.items() if value is not None},
        )

    def _known(self, init: Any, channels: int) -> np.ndarray:
        """The last of the given frames, as many as the network takes: uint8 [T, H, W, C]."""
        sees = self.preprocess
        if not sees.known_frames:
            raise UserError(f"{self.card.name} goes on from no frames; leave out the video to go on from")
        size = {"resize_short": sees.size, "crop": sees.size, "interpolation": "bilinear", "mean": 0.0, "std": 255.0}
        decoding = Preprocessing(num_frames=sees.known_frames, frame_rate=sees.frame_rate, max_clips=1, **size)
        frames = given_frames(init, decoding, channels)[-sees.known_frames :]
        if not len(frames):
            raise UserError(f"a video without frames is too short for {self.card.name} to go on from; give 1 or more")
        # Where frames share their latents, of too few the first stands still, and of too many it is left out.
        together = getattr(self.model, "frames_a_step", 1)
        missing = max(0, together - len(frames))
        frames = np.concatenate([np.repeat(frames[:1], missing, axis=0), frames])
        return frames[len(frames) % together :]

    def _windows(
        self,
        asked: FlowMatching,
        counts: np.ndarray,
        keys: jax.Array,
        begin: np.ndarray,
        length: int,
        progress: Callable[[float], None],
    ) -> np.ndarray:
        """float32 [B, length, H, W, C]: what comes after the frames uint8 [T, H, W, C], in windows that overlap."""
        made = np.repeat(np.asarray(to_float(begin))[None], len(counts), axis=0)
        window, total = 0, len(begin) + length
        while made.shape[1] < total:
            overlap = min(made.shape[1], self.preprocess.known_frames)
            frames = np.zeros((len(counts), asked.clip_shape[0], *made.shape[2:]), np.float32)
            frames[:, :overlap] = made[:, made.shape[1] - overlap :]
            known = np.zeros(frames.shape[:2], np.float32)
            known[:, :overlap] = 1
            drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, window)
            clips = generated(asked, self.model, counts, drawn, frames, known)
            # A frame that is gone on from lies in the range of those that were trained on.
            made = np.concatenate([made, np.clip(clips[:, overlap:], -1, 1)], axis=1)
            window += 1
            progress(min(1, (made.shape[1] - len(begin)) / length))
        return made[:, len(begin) : total]


def _layers(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts of each thing by itself, one or no thing a row, and of which clip each row is, in order."""
    clip_of, shown = [], []
    for clip, row in enumerate(counts.astype(int)):
        things = np.repeat(np.eye(len(row), dtype=np.float32), row, axis=0)
        shown.append(things if len(things) else np.zeros((1, len(row)), np.float32))
        clip_of += [clip] * len(shown[-1])
    return np.concatenate(shown), np.array(clip_of)


def _keys(seed: int, clip_of: np.ndarray) -> jax.Array:
    """A key for each layer, by its clip's number and by how many of that clip's layers come before it."""
    layer = np.arange(len(clip_of)) - np.searchsorted(clip_of, clip_of)
    return jax.vmap(lambda clip, layer: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), clip), layer))(
        clip_of, layer
    )


def class_counts(asked: Any, labels: Sequence[str]) -> np.ndarray:
    """How often each class is asked for, float32 [classes].

    Args:
      asked: None, a class's number or name, a text of such with spaces or commas between, or several of all these.

    Raises:
      UserError: a class is not known.
    """
    parts = [] if asked is None else [asked] if isinstance(asked, int | str) else asked
    counts = np.zeros(len(labels), np.float32)
    for word in " ".join(map(str, parts)).replace(",", " ").lower().split():
        number = labels.index(word) if word in labels else int(word) if word.isdecimal() else -1
        if not 0 <= number < len(labels):
            raise unknown("class", word, [*labels, *map(str, range(len(labels)))])
        counts[number] += 1
    return counts
