"""What each shot of a film shows, in the labels of published classifiers."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zoo.data.decode import VideoReader
from zoo.data.sampling import clip_times, clips_to_cover
from zoo.predictor import Classifier
from zoo.shot_detector import Shot
from zoo.shot_list import Tags

MODELS = {"imagenet": "efficientnet_lite0_imagenet", "kinetics": "i3d_kinetics400"}


def tag(
    reader: VideoReader,
    shots: Sequence[Shot],
    classifiers: Mapping[str, Classifier],
    *,
    top: int = 5,
    progress: Callable[[], None] = lambda: None,
) -> list[Tags]:
    """The `top` likeliest labels of each shot by each classifier, probabilities averaged over the shot.

    A shot is sampled as a video of its own: as many of the classifier's clips as cover it, up to the card's number,
    spread evenly. `progress` is called after each shot.
    """
    found = []
    for shot in shots:
        tags = {}
        for source, classifier in classifiers.items():
            probabilities = classifier.probabilities(_clips(reader, shot, classifier))
            best = np.argsort(-probabilities, kind="stable")[:top]
            tags[source] = [(classifier.labels[index], round(float(probabilities[index]), 4)) for index in best]
        found.append(tags)
        progress()
    return found


def _clips(reader: VideoReader, shot: Shot, classifier: Classifier) -> np.ndarray:
    """float32 [clips, T, H, W, 3], as the classifier's `preprocess` would give of the shot alone."""
    wanted = classifier.preprocess
    sampling = {"num_frames": wanted.num_frames, "frame_rate": wanted.frame_rate}
    duration = shot.end - shot.start
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the video lasts")  # many shots are shorter than a clip
        num_clips = min(wanted.max_clips, clips_to_cover(duration, **sampling))
        times = clip_times(duration, num_clips=num_clips, **sampling)
    if wanted.num_frames == 1:
        times += np.minimum(0.5 / wanted.frame_rate, duration / 2)  # not the first picture after a cut
    pixels = reader.frames_at((shot.start + times).ravel(), each=wanted.resize)
    return wanted.scale(pixels.reshape(*times.shape, *pixels.shape[1:]))
