"""What `zoo.load` gives: a network with its weights, preprocessing and labels, called on real video."""

import functools
import itertools
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import hub, registry
from zoo.data.decode import open_video
from zoo.data.sampling import at_rate
from zoo.data.transforms import Preprocessing
from zoo.errors import UserError
from zoo.precision import as_parameters
from zoo.registry import ModelCard
from zoo.stream import Stream


class Predictor:
    """A published model; the subclass of its task adds what it can be asked.

    Attributes:
      model: the nnx module in evaluation mode; calls of the predictor follow whatever is done to it.
      card: what is known of it.
      labels: names of its classes, in the order of its logits.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        self.card, self.model = card, model

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels


class Classifier(Predictor):
    """Names what happens in a video; compiled once for each shape of a clip, however long the videos are.

    A video is whatever `preprocess` takes: a path, a URL, bytes, a binary file object or uint8 RGB [T, H, W, 3].

    Attributes:
      preprocess: turns a video into float32 [clips, T, H, W, 3], on each of which `model` can be called.
    """

    def __init__(self, card: ModelCard, model: nnx.Module):
        super().__init__(card, model)
        self.preprocess = Preprocessing(**card.preprocessing)

    def __call__(self, video: Any) -> list[tuple[str, float]]:
        """Every label with its probability (softmax, averaged over the clips), best first.

        Raises:
          UserError: the video cannot be read.
        """
        probabilities = self.probabilities(self.preprocess(video))
        best = np.argsort(-probabilities, kind="stable")
        return [(self.labels[index], float(probabilities[index])) for index in best]

    def probabilities(self, clips: Iterable[np.ndarray]) -> np.ndarray:
        """Softmax of each clip float32 [T, H, W, 3], made by `preprocess`, averaged over clips: float64 [classes]."""
        # One clip at a time, so that long and short videos share a shape and thereby a compiled program.
        return np.mean([self._probabilities(clip[None])[0] for clip in clips], axis=0)

    def embed(self, video: Any) -> np.ndarray:
        """The network's features, averaged over the clips: float32 [features].

        Raises:
          UserError: the video cannot be read, or the network has no features.
        """
        self._check_features()
        weights = nnx.split(self.model)
        found = [_run(*weights, clip[None], method="features")[0] for clip in self.preprocess(video)]
        return np.mean(found, axis=0)

    def features_and_probabilities(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both at the price of one, of clips float32 [B, T, H, W, 3]: float32 [B, features], float64 [B, classes].

        Raises:
          UserError: the network has no features.
        """
        self._check_features()
        features, logits = _run_both(*nnx.split(self.model), clips)
        return np.asarray(features), _softmax(logits)

    def windows(self, video: Any, batch_size: int = 4) -> Iterator[tuple[float, np.ndarray]]:
        """What each stretch of a video shows: (its start in seconds, float64 probabilities [classes]), one by one.

        The windows follow upon each other and have the card's `num_frames`; the last is filled up with its last frame.
        So many at a time go through one compiled call, and no more frames than theirs are held, however long the video.

        Raises:
          UserError: the video cannot be read.
        """
        sees = self.preprocess
        with open_video(video) as reader:
            frames = (sees.resize(frame) for _, frame in at_rate(reader.frames(), sees.frame_rate))
            windows = itertools.batched(frames, sees.num_frames)
            for number, several in enumerate(itertools.batched(windows, batch_size)):
                filled = [[*window, *[window[-1]] * (sees.num_frames - len(window))] for window in several]
                filled += [filled[-1]] * (batch_size - len(filled))
                probabilities = self._probabilities(sees.scale(np.array(filled)))
                for place in range(len(several)):
                    first = (number * batch_size + place) * sees.num_frames
                    yield first / sees.frame_rate, probabilities[place]

    def _probabilities(self, clips: np.ndarray) -> np.ndarray:
        return _softmax(_run(*nnx.split(self.model), clips, method="__call__"))

    def _check_features(self) -> None:
        if not hasattr(self.model, "features"):
            raise UserError(f"{self.card.name} is a {self.card.arch}, which gives no features")

    def stream(self, streams: int | None = None, *, resume: Any = None) -> Stream:
        """A video as it comes, frame by frame: `with predictor.stream() as stream: stream.push(frame)`.

        Args:
          streams: so many videos side by side, a frame of each at a time.
          resume: path of a file that `Stream.save` wrote.

        Raises:
          UserError: the model needs the whole clip, or `resume` is not of this model.
        """
        if not getattr(self.model, "is_causal", False):
            way_out = "a causal recurrent one, such as cnn_lstm_kinetics, does not"
            raise UserError(f"{self.card.name} needs the whole clip before it answers; {way_out}")
        made = Stream(self.card, self.model, self.preprocess, streams)
        if resume is not None:
            made.resume(resume)
        return made


@functools.partial(jax.jit, static_argnames=("graph", "method"))
def _run(graph: nnx.GraphDef, state: nnx.State, clips: jax.Array, *, method: str) -> jax.Array:
    """Weights come as an argument: as constants they would be compiled in, and copied with every program."""
    return _call(nnx.merge(graph, state), clips, method)


@functools.partial(jax.jit, static_argnames="graph")
def _run_both(graph: nnx.GraphDef, state: nnx.State, clips: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features and logits: XLA computes once what both have in common, which is nearly all."""
    model = nnx.merge(graph, state)
    return _call(model, clips, "features"), _call(model, clips, "__call__")


def _call(model: nnx.Module, clips: jax.Array, method: str) -> jax.Array:
    return getattr(model, method)(as_parameters(model, clips)).astype(jnp.float32)


def _softmax(logits: jax.Array) -> np.ndarray:
    """Probabilities, float64."""
    powers = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


PREDICTORS = {
    "classification": "zoo.predictor:Classifier",
    "detection": "zoo.detector:Detector",
    "generation": "zoo.video_generator:VideoGenerator",
    "pose": "zoo.pose:PoseFinder",
    "prediction": "zoo.frame_predictor:FramePredictor",
    "sentence embedding": "zoo.sentence_embedder:SentenceEmbedder",
    "shot boundaries": "zoo.shot_detector:ShotDetector",
    "speech commands": "zoo.speller:Speller",
    "transcription": "zoo.transcriber:Transcriber",
}
"""By the card's task, imported when one is loaded; a task without calls of its own gets a plain `Predictor`."""


def load(name: str, *, device: Any = None, dtype: Any = None, sharding: hub.Placement | None = None) -> Any:
    """A published model, ready to use: `zoo.load("i3d_kinetics400")("cup.mp4")`.

    Args:
      name: one of `zoo.list_models()`.
      device: a `jax.Device`, or "cpu", "gpu" or "tpu" for the first one of that kind; JAX's default without.
      dtype: of the parameters and of the computation, such as `jnp.bfloat16`; answers are float32 all the same.
      sharding: instead of a device, a `jax.sharding.Sharding` for every array, or a function of an array's path and
        shape that gives one.

    Returns:
      What `PREDICTORS` has for the model's task, such as a `Classifier`.

    Raises:
      UserError: no such model or device, or its weights cannot be had.
    """
    if device is not None and sharding is not None:
        raise UserError(f"device={device!r} and sharding are both given; a sharding names its devices, so drop device")
    card = registry.card(name)
    place = _first_device(device) if isinstance(device, str) else device
    hub.use_compilation_cache()
    model = nnx.eval_shape(lambda: registry.create(card.arch, **card.options))
    model = hub.load_weights(model, card, sharding=sharding, device=place, dtype=dtype)
    model.eval()
    return pkgutil.resolve_name(PREDICTORS.get(card.task, "zoo.predictor:Predictor"))(card, model)


def _first_device(platform: str) -> Any:
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        there = sorted({device.platform for device in jax.devices()})
        raise UserError(f"there is no device {platform!r} here; there is {', '.join(there)}") from error
