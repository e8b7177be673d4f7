"""Subtitles as players read them: FFmpeg reads the same times and texts out of the files."""

import io
import json

import av
import pytest

from zoo.listener import Segment, Word
from zoo.subtitles import FORMATS

TEXT = "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power"
WORDS = TEXT.split()
LONG = Segment(
    " ".join(WORDS),
    3600.5,
    3610.0,
    tuple(Word(word, 3600.5 + number / 2, 3601 + number / 2) for number, word in enumerate(WORDS)),
    -0.2,
    doubtful=False,
)
SHORT = Segment("a < b & c", 1.0, 2.25, (Word("a", 1.0, 1.2), Word("< b & c", 1.2, 2.25)), -1.4, doubtful=True)


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_a_player_reads_them(form):
    text = FORMATS[form]([SHORT, LONG])
    found = []
    with av.open(io.BytesIO(text.encode()), format={"srt": "srt", "vtt": "webvtt"}[form]) as file:
        for packet in file.demux():
            if packet.size:
                assert packet.pts is not None
                assert packet.duration is not None
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), bytes(packet).decode()))
    first, *others = found
    assert first[:2] == pytest.approx((1.0, 2.25))
    assert first[2].replace("&lt;", "<").replace("&amp;", "&") == "a < b & c"
    assert others[0][0] == pytest.approx(3600.5)
    assert others[-1][1] == pytest.approx(3610.0)
    assert [start for start, _, _ in others[1:]] == pytest.approx([end for _, end, _ in others[:-1]])
    assert " ".join(text for _, _, text in others).split() == WORDS
    for _, _, text in others:
        assert all(len(line) <= 42 for line in text.splitlines())
        assert len(text.splitlines()) <= 2


def test_text_marks_what_is_unsure():
    assert FORMATS["txt"]([SHORT, LONG]) == f"a < b & c  [unsure]\n{' '.join(WORDS)}\n"


def test_json_has_every_word():
    told = json.loads(FORMATS["json"]([LONG]))["segments"]
    assert [word["text"] for word in told[0]["words"]] == WORDS
    assert told[0]["start"] == 3600.5


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_said(form):
    assert FORMATS[form]([]) in ("", "WEBVTT\n\n", '{"segments": []}\n', '{\n "segments": []\n}\n')
