"""Stand-ins for all models of `zoo search` and `zoo report`: what a colour shows is known without a network.

`python -m tests.colourists index FOLDER --db DIR` is `zoo search` with them; it notes each video that it takes apart in
the file `COLOURISTS_LOG`, and takes `COLOURISTS_SECONDS` for it.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.clips import write_clip
from zoo import predictor, search
from zoo.data.transforms import Preprocessing
from zoo.listener import Segment, Word
from zoo.shot_detector import Transitions

LABELS = ("opening bottle", "wrapping present", "abseiling")  # of red, green and blue, all of them Kinetics'
SAID = "the quick brown fox"


class Classifier:
    """Red is opened bottles; features are an 8x8 picture, the mean over the frames."""

    labels = LABELS

    def __init__(self, num_frames: int):
        self.preprocess = Preprocessing(num_frames, 8.0, 2, 8, 8, "bilinear", 0.0, 255.0)

    def features_and_probabilities(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(float(os.environ.get("COLOURISTS_SECONDS", 0)))
        colours = clips.mean(axis=(1, 2, 3)).astype(np.float64) + 1e-3
        return clips.mean(axis=1).reshape(len(clips), -1), colours / colours.sum(axis=-1, keepdims=True)


class Detector:
    """What is bright is a cup."""

    labels = ("person", "cup")
    preprocess = type("Tiles", (), {"threshold": 0.4})

    def boxes(self, frames: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        return [(np.zeros((1, 4)), np.array([frame.max() / 255]), np.array([1])) for frame in frames]


class ShotDetector:
    """A white frame ends a shot."""

    preprocess = type("Windows", (), {"threshold": 0.5})

    def transitions(self, reader: Any, progress: Any = None) -> Transitions:
        frames = list(reader.frames())
        white = np.array([frame.mean() > 240 for _, frame in frames], np.float32)
        return Transitions(np.array([seconds for seconds, _ in frames]), reader.duration, white, white)


class Transcriber:
    """Whoever makes a sound says the same."""

    def transcribe(self, sound: Any) -> list[Segment]:
        words = tuple(Word(word, 0.2 * index, 0.2 * index + 0.2) for index, word in enumerate(SAID.split()))
        return [Segment(SAID, 0.0, words[-1].end, words, -0.1, doubtful=False)]


class Sentences:
    """Texts as counts of letters."""

    def embed(self, texts: Any) -> np.ndarray:
        counts = [[1e-3 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        vectors = np.array(counts, np.float32).reshape(len(texts), 26)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def install(set_attribute: Any) -> None:
    """Takes the place of `zoo.load`."""
    loaded = {
        "i3d_kinetics400": Classifier(4),
        "efficientnet_lite0_imagenet": Classifier(1),
        "centernet_coco": Detector(),
        "transnetv2": ShotDetector(),
        "whisper_tiny_en": Transcriber(),
        "minilm_l6_v2": Sentences(),
    }
    set_attribute(predictor, "load", loaded.__getitem__)


def film(path: Path, *colours: tuple[int, int, int], seed: int = 0, **options: Any) -> Path:
    """A shot of half a second of each colour, with a pattern of its own, at 20 frames a second; lossless by default."""
    rng = np.random.default_rng(seed)
    frames = []
    for number, colour in enumerate(colours):
        pattern = rng.uniform(0.3, 0.9, (3, 4, 1)) * np.array(colour)
        picture = Image.fromarray(pattern.astype(np.uint8)).resize((64, 48), Image.Resampling.BILINEAR)
        frames += [np.asarray(picture)] * 10
        if number + 1 < len(colours):
            frames[-1] = np.full((48, 64, 3), 255, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, frames, fps=20, **({"codec": "ffv1"} | options))


RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)


if __name__ == "__main__":
    from zoo import command_line, video_analysis

    install(setattr)
    before = video_analysis.VideoAnalyser.__call__

    def noted(self: Any, path: Any, *rest: Any) -> Any:
        with open(os.environ["COLOURISTS_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{path.name}\n")
        return before(self, path, *rest)

    video_analysis.VideoAnalyser.__call__ = noted
    command_line.run("zoo search", search.main)
