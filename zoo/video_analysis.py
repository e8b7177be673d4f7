"""A video taken apart: its shots, and of each stretch of them labels, objects, words and vectors to find it by."""

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from zoo import predictor
from zoo.data.decode import VideoReader, open_video
from zoo.data.sound import open_sound
from zoo.errors import UserError
from zoo.shot_detector import Shot, shots_of

CLASSIFIER = "i3d_kinetics400"
MODELS = {
    "shots": "transnetv2",
    "frames": "efficientnet_lite0_imagenet",
    "objects": "centernet_coco",
    "speech": "whisper_tiny_en",
}
"""Published models beside the classifier, by what each one is asked for."""

LONGEST = 10.0  # seconds of a segment: a longer shot is parted evenly
_FRAMES = 32  # of a segment, spread evenly: half of the window that I3D is asked with elsewhere, at half the cost
_LOOKED_AT = (4, 12, 20, 28)  # which of them a network of single frames sees
_TOP = 5  # labels of a segment
_LIKELY = 0.2  # the probability from which on a label is taken for true
_SHORT_SIDE = 512  # pixels, as large as the detector sees; what is larger is made smaller before it is held
_PICTURE_WIDTH = 320  # pixels

type Scored = tuple[str, float]
"""A label and its probability or score."""


@dataclasses.dataclass(frozen=True)
class VideoSegment:
    """A shot, or an even part of a long one.

    Attributes:
      start, end: seconds.
      labels: the likeliest of the classifier's, best first: what happens.
      frame_labels: the likeliest of a frame classifier's, best first: what is to be seen.
      objects: each kind that was detected with its best score, best first.
      words: what is said within it; "" where nothing is.
      embedding: float32 [features], the classifier's features of its frames, of length 1.
      frame_embedding: float32 [features], the mean of a frame classifier's features, of length 1.
      picture: uint8 [H, W, 3], its middle frame, small.
    """

    start: float
    end: float
    labels: tuple[Scored, ...]
    frame_labels: tuple[Scored, ...]
    objects: tuple[Scored, ...]
    words: str
    embedding: np.ndarray
    frame_embedding: np.ndarray
    picture: np.ndarray

    @property
    def text(self) -> str:
        """What can be found by words: what is likely, in one of its names, and all that is said; never empty."""
        seen = [
            ", ".join(label.partition(",")[0] for label, probability in labels if probability >= _LIKELY)
            for labels in (self.labels, self.frame_labels)
        ]
        parts = [*seen, ", ".join(label for label, _ in self.objects), self.words]
        return ". ".join(part for part in parts if part) or self.labels[0][0]


@dataclasses.dataclass(frozen=True)
class VideoAnalysis:
    """All that is found in a video.

    Attributes:
      duration: seconds.
      frame_rate: frames a second, on average.
      height, width: pixels of a frame.
      shots: in order.
      segments: in order; gradual transitions between shots belong to none.
      speech: `zoo.listener.Segment`s in order; none where there is no sound.
    """

    duration: float
    frame_rate: float
    height: int
    width: int
    shots: tuple[Shot, ...]
    segments: tuple[VideoSegment, ...]
    speech: tuple[Any, ...]


class VideoAnalyser:
    """Published models together: each is loaded once, when it is first needed.

    Args:
      classifier: a published classifier whose features are the segments' embeddings.
    """

    def __init__(self, classifier: str = CLASSIFIER):
        self.names = {"classifier": classifier, **MODELS}
        self._loaded: dict[str, Any] = {}
        self._loading = threading.Lock()  # several videos may be taken apart at once

    def __call__(self, path: Any, progress: Callable[[float], None] = lambda _: None) -> VideoAnalysis:
        """Takes a video apart; `progress` is told the seconds that are done.

        Args:
          path: what `open_video` takes; it is opened twice, so a file object must be able to seek.

        Raises:
          UserError: the video cannot be read.
        """
        speech = self.speech(path)
        with open_video(path) as reader:
            shots = self.shots(reader)
            segments = []
            for start, end in stretches(shots):
                segments.append(self._segment(reader, start, end, speech))
                progress(end)
            return VideoAnalysis(
                reader.duration, reader.frame_rate, reader.height, reader.width, shots, tuple(segments), speech
            )

    def embeddings(self, video: Any) -> np.ndarray:
        """float32 [segments, features] of a video that is cut as `__call__` cuts it; of nothing else.

        Raises:
          UserError: the video cannot be read.
        """
        with open_video(video) as reader:
            parts = stretches(self.shots(reader))
            return np.stack([self._embedding(_frames(reader, start, end))[0] for start, end in parts])

    def frame_embedding(self, picture: Any) -> np.ndarray:
        """float32 [features] of a picture, or of a video's first frame; comparable with segments' `frame_embedding`.

        Raises:
          UserError: the picture cannot be read.
        """
        with open_video(picture) as reader:
            return self._frame_embedding([_smaller(next(frame for _, frame in reader.frames()))])[0]

    def shots(self, reader: VideoReader) -> tuple[Shot, ...]:
        """The shots of an open video, at least one."""
        detector = self._model("shots")
        return tuple(shots_of(detector.transitions(reader), detector.preprocess.threshold))

    def speech(self, path: Any) -> tuple[Any, ...]:
        """What is said, without what the model is unsure of; nothing where there is no sound track."""
        try:
            sound = open_sound(path)
        except UserError:  # no sound, or no such file, which whoever opens the picture tells
            return ()
        with sound:
            return tuple(segment for segment in self._model("speech").transcribe(sound) if not segment.doubtful)

    def _model(self, role: str) -> Any:
        with self._loading:
            if role not in self._loaded:
                self._loaded[role] = predictor.load(self.names[role])
            return self._loaded[role]

    def _segment(self, reader: VideoReader, start: float, end: float, speech: Sequence[Any]) -> VideoSegment:
        frames = _frames(reader, start, end)
        embedding, labels = self._embedding(frames)
        looked_at = [frames[index] for index in _LOOKED_AT]
        frame_embedding, frame_labels = self._frame_embedding(looked_at)
        middle = frames[len(frames) // 2]
        height = max(1, round(middle.shape[0] * _PICTURE_WIDTH / middle.shape[1]))
        return VideoSegment(
            start,
            end,
            labels,
            frame_labels,
            self._objects(looked_at),
            words_within(speech, start, end),
            embedding,
            frame_embedding,
            np.asarray(Image.fromarray(middle).resize((_PICTURE_WIDTH, height), Image.Resampling.BOX)),
        )

    def _embedding(self, frames: np.ndarray) -> tuple[np.ndarray, tuple[Scored, ...]]:
        """A segment's vector of length 1 and its likeliest labels."""
        classifier = self._model("classifier")
        sees = classifier.preprocess
        count = min(sees.num_frames, len(frames))
        chosen = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
        clip = sees.scale(np.stack([sees.resize(frames[index]) for index in chosen]))
        features, probabilities = classifier.features_and_probabilities(clip[None])
        return _of_length_one(features[0]), _best(classifier.labels, probabilities[0])

    def _frame_embedding(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[Scored, ...]]:
        """The same of single frames, averaged."""
        classifier = self._model("frames")
        pictures = classifier.preprocess.scale(np.stack([classifier.preprocess.resize(frame) for frame in frames]))
        features, probabilities = zip(
            *(classifier.features_and_probabilities(picture[None, None]) for picture in pictures), strict=True
        )
        return _of_length_one(np.mean(features, axis=(0, 1))), _best(
            classifier.labels, np.mean(probabilities, axis=(0, 1))
        )

    def _objects(self, frames: Sequence[np.ndarray]) -> tuple[Scored, ...]:
        detector = self._model("objects")
        best: dict[str, float] = {}
        for _, scores, classes in detector.boxes(list(frames)):
            for score, number in zip(scores.tolist(), classes.tolist(), strict=True):
                if score >= detector.preprocess.threshold:
                    label = detector.labels[number]
                    best[label] = max(score, best.get(label, 0.0))
        return tuple(sorted(best.items(), key=lambda pair: -pair[1]))


def stretches(shots: Sequence[Shot]) -> list[tuple[float, float]]:
    """Starts and ends, in seconds, of the shots; those above `LONGEST` are parted evenly."""
    found = []
    for shot in shots:
        count = max(1, math.ceil((shot.end - shot.start) / LONGEST - 1e-6))
        edges = np.linspace(shot.start, shot.end, count + 1).tolist()
        found += itertools.pairwise(edges)
    return found


def words_within(speech: Sequence[Any], start: float, end: float) -> str:
    """The words of `zoo.listener.Segment`s of which the middle lies within a stretch of time."""
    words = (word for segment in speech for word in segment.words)
    return " ".join(word.text for word in words if start <= (word.start + word.end) / 2 < end)


def _frames(reader: VideoReader, start: float, end: float) -> np.ndarray:
    """uint8 [32, H, W, 3], spread evenly: a copy that runs at another pace shows the same."""
    times = start + (np.arange(_FRAMES) + 0.5) * (end - start) / _FRAMES
    return reader.frames_at(times, each=_smaller)


def _smaller(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = _SHORT_SIDE / min(height, width)
    if scale >= 1:
        return frame
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _best(labels: Sequence[str], probabilities: np.ndarray) -> tuple[Scored, ...]:
    best = map(int, np.argsort(-probabilities, kind="stable")[:_TOP])
    return tuple((labels[index], float(probabilities[index])) for index in best)


def _of_length_one(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
