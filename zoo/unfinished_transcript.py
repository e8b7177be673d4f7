"""What is written down of a long sound so far, kept beside the file that it will be, so that a stopped run goes on."""

import dataclasses
import json
from pathlib import Path

from zoo import output_files
from zoo.listener import Segment, Word


class UnfinishedTranscript:
    """Lines of JSON: what is transcribed and how, then what each step found and up to where.

    Attributes:
      segments: what an earlier run of the same found; `until` the seconds up to which that goes, 0 without one.
    """

    def __init__(self, path: Path, what: dict[str, object]):
        self.path = path.with_name(f".{path.name}.unfinished")
        self.segments: list[Segment] = []
        self.until = 0.0
        head, *lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else [""]
        if head == json.dumps(what):
            for line in lines:
                if not line.endswith("}"):
                    break  # cut off by a kill; what it held is heard again
                self._take(json.loads(line))
        output_files.write_text(self.path, "".join(f"{line}\n" for line in (json.dumps(what), *self._lines())))

    def add(self, until: float, segments: list[Segment]) -> None:
        """Notes a step.

        Raises:
          UserError: the disk is full.
        """
        with output_files.refusal_told(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(until, segments) + "\n")

    def finished(self) -> None:
        """Lets go of it."""
        self.path.unlink(missing_ok=True)

    def _take(self, step: dict) -> None:
        self.until = step["until"]
        for told in step["segments"]:
            words = tuple(Word(**word) for word in told.pop("words"))
            self.segments.append(Segment(words=words, **told))

    def _lines(self) -> list[str]:
        return [_line(self.until, self.segments)] if self.until else []


def _line(until: float, segments: list[Segment]) -> str:
    return json.dumps({"until": until, "segments": [dataclasses.asdict(segment) for segment in segments]})
