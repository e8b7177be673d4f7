"""Which box of a frame is the same object as one of the frame before: ByteTrack, by the library supervision.

Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", arXiv:2110.06864.
"""

import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    # It announces that it does without OpenCV, which is why it was chosen, and that its successor, which needs OpenCV,
    # has ByteTrack now.
    warnings.simplefilter("ignore")
    from supervision import ByteTrack, Detections

LOST_SECONDS = 1.0  # so long an object may be hidden and keep its number


class Tracker:
    """Gives objects numbers that they keep from frame to frame, from 1 on; objects of different classes never share.

    Args:
      frame_rate: frames a second.
      threshold: the score from which on a box may begin a track; lower ones can only continue one.
    """

    def __init__(self, frame_rate: float, threshold: float):
        self._frame_rate, self._threshold = frame_rate, threshold
        self._of_class: dict[int, Any] = {}
        self._numbers: dict[tuple[int, int], int] = {}

    def update(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The number of each box of the next frame, 0 for one that belongs to no track (yet): int [N].

        Args:
          boxes: float [N, 4], left, top, right, bottom in pixels.
          scores: float [N].
          classes: int [N].
        """
        tracks = np.zeros(len(boxes), int)
        for number in self._of_class.keys() | set(classes.tolist()):  # a tracker must also hear that nothing was seen
            ours = np.flatnonzero(classes == number)
            for index, track in self._update(number, boxes[ours], scores[ours]):
                tracks[ours[index]] = self._numbers.setdefault((number, track), len(self._numbers) + 1)
        return tracks

    def _update(self, number: int, boxes: np.ndarray, scores: np.ndarray) -> list[tuple[int, int]]:
        """(which box, track) of those that are followed."""
        if number not in self._of_class:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._of_class[number] = ByteTrack(
                    track_activation_threshold=self._threshold,
                    lost_track_buffer=max(1, round(30 * LOST_SECONDS)),  # ByteTrack counts in thirtieths of a second
                    frame_rate=self._frame_rate,
                )
        given = Detections(
            xyxy=boxes.astype(np.float32).reshape(-1, 4),
            confidence=scores.astype(np.float32),
            data={"index": np.arange(len(boxes))},
        )
        found = self._of_class[number].update_with_detections(given)
        if found.tracker_id is None or not len(found):
            return []
        pairs = zip(np.asarray(found.data["index"]).tolist(), found.tracker_id.tolist(), strict=True)
        return [(index, track) for index, track in pairs if track > 0]  # ByteTrack has -1 for what it is not sure of
