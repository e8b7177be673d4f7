"""A contact sheet: the middle picture of every shot, with its number, its time and its tags."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.data.decode import VideoReader
from zoo.shot_detector import Shot
from zoo.shot_list import Tags

_SHEET_WIDTH = 1920  # pixels, about
_WIDTHS = (96, 320)  # of a picture: the least at which one sees what it shows, and the most
_PAD = 8
_BACKGROUND, _TEXT, _FAINT = (24, 24, 24), (235, 235, 235), (150, 150, 150)


def draw(reader: VideoReader, shots: Sequence[Shot], tags: Sequence[Tags] = ()) -> np.ndarray:
    """The sheet, uint8 [H, W, 3].

    Args:
      reader: the film.
      shots: at least one.
      tags: one entry a shot, or none at all; the likeliest of each kind is written.
    """
    columns = min(len(shots), max(_SHEET_WIDTH // (_WIDTHS[1] + _PAD), math.ceil(math.sqrt(len(shots)))))
    width = int(np.clip(_SHEET_WIDTH // columns - _PAD, *_WIDTHS))
    height = max(1, min(round(width * reader.height / reader.width), 2 * width))
    font = ImageFont.load_default(size=max(10, width // 20))
    line = round(font.getbbox("Ag")[3]) + 2
    kinds = list(tags[0]) if tags else []
    cell = height + line * (1 + len(kinds)) + _PAD
    middles = [(shot.start + shot.end) / 2 for shot in shots]
    pictures = reader.frames_at(
        middles, each=lambda frame: np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))
    )
    rows = -(-len(shots) // columns)
    sheet = Image.new("RGB", (columns * (width + _PAD) + _PAD, rows * cell + _PAD), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for index, (shot, picture) in enumerate(zip(shots, pictures, strict=True)):
        left, top = _PAD + index % columns * (width + _PAD), _PAD + index // columns * cell
        sheet.paste(Image.fromarray(picture), (left, top))
        texts = [(f"{index + 1}  {_clock(shot.start)} - {_clock(shot.end)}", _TEXT)]
        best = [tags[index][kind][0] for kind in kinds]
        # ImageNet's labels have synonyms after commas, for which there is no room.
        texts += [(f"{label.partition(',')[0]} {probability:.2f}", _FAINT) for label, probability in best]
        for row, (text, colour) in enumerate(texts):
            pen.text((left, top + height + row * line), _cut(text, font, width), fill=colour, font=font)
    return np.asarray(sheet)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, shortened to what fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
