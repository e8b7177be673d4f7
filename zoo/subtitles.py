"""Segments of speech as files: SubRip (.srt), WebVTT (.vtt), plain text and JSON."""

import dataclasses
import json
from collections.abc import Callable, Sequence

from zoo.listener import Segment

_LINE = 42  # characters that a line of subtitles may have, as broadcasters have it
_LINES = 2


def srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered, times as 00:00:01,500."""
    pieces = [piece for segment in segments for piece in on_screen(segment)]
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(pieces, 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT (W3C): times as 00:00:01.500; what could be taken for markup is escaped."""
    pieces = [piece for segment in segments for piece in on_screen(segment)]
    escaped = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    return "WEBVTT\n\n" + "".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text.translate(escaped)}\n\n" for start, end, text in pieces
    )


def txt(segments: Sequence[Segment]) -> str:
    """A line a segment; what the model is unsure of is marked."""
    return "".join(f"{segment.text}{'  [unsure]' if segment.doubtful else ''}\n" for segment in segments)


def as_json(segments: Sequence[Segment]) -> str:
    """Everything that is known of each segment and word."""
    told = [dataclasses.asdict(segment) for segment in segments]
    return json.dumps({"segments": told}, ensure_ascii=False, indent=1) + "\n"


FORMATS: dict[str, Callable[[Sequence[Segment]], str]] = {"srt": srt, "vtt": vtt, "txt": txt, "json": as_json}


def on_screen(segment: Segment) -> list[tuple[float, float, str]]:
    """(start, end, text) of what fits on the screen at once, parted between words where there is more."""
    screens: list[list[list[str]]] = []
    firsts = []
    for number, word in enumerate(segment.words):
        if screens and len(" ".join([*screens[-1][-1], word.text])) <= _LINE:
            screens[-1][-1].append(word.text)
        elif screens and len(screens[-1]) < _LINES:
            screens[-1].append([word.text])
        else:
            screens.append([[word.text]])
            firsts.append(number)
    starts = [segment.start, *(segment.words[number].start for number in firsts[1:])]
    ends = [*starts[1:], segment.end]
    texts = ["\n".join(" ".join(line) for line in screen) for screen in screens]
    return list(zip(starts, ends, texts, strict=True))


def _clock(seconds: float, mark: str) -> str:
    thousandths = round(1000 * seconds)
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths // 1000:02}{mark}{thousandths % 1000:03}"
