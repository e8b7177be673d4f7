"""Questions put to an index of videos: by a clip, by a picture or by words, with the models that made it."""

from typing import Any

from zoo import predictor, registry
from zoo.video_analysis import VideoAnalyser
from zoo.video_index import Filters, Hit, VideoIndex

_NAMING = ("classifier", "frames", "objects")  # the models that give labels


class SearchEngine:
    """An index and the models that turn questions into its vectors; each is loaded when it is first needed."""

    def __init__(self, index: VideoIndex):
        self.index = index
        self._analyser = VideoAnalyser(index.models["classifier"])
        self._sentences: Any = None

    def by_video(self, video: Any, count: int, filters: Filters | None = None) -> list[Hit]:
        """Segments that look and move like any shot of a clip, nearest first, with their cosine similarity.

        Args:
          video: what `zoo.data.decode.open_video` takes.

        Raises:
          UserError: it cannot be read, or no segment can have the label that is asked for.
        """
        self._check(filters)
        return self.index.near_any("embedding", self._analyser.embeddings(video), count, filters)

    def by_image(self, picture: Any, count: int, filters: Filters | None = None) -> list[Hit]:
        """Segments of which frames look like a picture, nearest first, with their cosine similarity.

        Raises:
          UserError: as `by_video`.
        """
        self._check(filters)
        return self.index.near("frame_embedding", self._analyser.frame_embedding(picture), count, filters)

    def by_words(self, words: str, count: int, filters: Filters | None = None) -> list[Hit]:
        """Segments whose labels, objects or speech mean or say the words, best first.

        Raises:
          UserError: no segment can have the label that is asked for.
        """
        self._check(filters)
        if self._sentences is None:
            self._sentences = predictor.load(self.index.models["sentences"])
        return self.index.by_words(words, self._sentences.embed([words])[0], count, filters)

    def like(self, key: str, number: int, count: int, filters: Filters | None = None) -> list[Hit] | None:
        """Segments that look and move like one that is indexed, itself first; None where there is no such segment."""
        self._check(filters)
        vector = self.index.embedding(key, number)
        return None if vector is None else self.index.near("embedding", vector, count, filters)

    def all(self, count: int, filters: Filters) -> list[Hit]:
        """Segments that are what the filters say, in no order of their own; their score is 0."""
        self._check(filters)
        return self.index.all(count, filters)

    def labels(self) -> list[str]:
        """Labels and objects that segments may have, sorted."""
        return sorted({label for role in _NAMING for label in registry.card(self.index.models[role]).labels})

    def _check(self, filters: Filters | None) -> None:
        if filters is None or filters.label is None:
            return
        known = self.labels()
        if filters.label not in known:
            *cards, last = (self.index.models[role] for role in _NAMING)
            many = f"there are {len(known):,}, those of {', '.join(cards)} and {last}: see zoo.card(NAME).labels"
            raise registry.unknown("label of this index", filters.label, known, many)
