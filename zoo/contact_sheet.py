"""Contact sheets: the middle picture of every shot, with its number, its time and its tags; or any pictures."""

import math
import statistics
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
    """The sheet of a film, uint8 [H, W, 3].

    Args:
      reader: the film.
      shots: at least one.
      tags: one entry a shot, or none at all; the likeliest of each kind is written.
    """
    _, width = _columns(len(shots))
    height = max(1, min(round(width * reader.height / reader.width), 2 * width))
    middles = [(shot.start + shot.end) / 2 for shot in shots]
    pictures = reader.frames_at(
        middles, each=lambda frame: np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))
    )
    texts = []
    for number, shot in enumerate(shots, 1):
        # ImageNet's labels have synonyms after commas, for which there is no room.
        best = [of_kind[0] for of_kind in tags[number - 1].values()] if tags else []
        told = [f"{label.partition(',')[0]} {probability:.2f}" for label, probability in best]
        texts.append([f"{number}  {clock(shot.start)} - {clock(shot.end)}", *told])
    return arrange(list(pictures), texts)


def arrange(pictures: Sequence[np.ndarray], texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Pictures uint8 [H, W, 3] in rows, each with its lines of text below, the first one bright: uint8 [H, W, 3].

    Args:
      pictures: at least one; they are made as wide as there is room for, but no higher than most of them.
      texts: as many lines for each.
    """
    columns, width = _columns(len(pictures))
    heights = [max(1, min(round(width * pixels.shape[0] / pixels.shape[1]), 2 * width)) for pixels in pictures]
    font = ImageFont.load_default(size=max(10, width // 20))
    line = round(font.getbbox("Ag")[3]) + 2
    height = statistics.median_low(heights)  # one upright picture must not part all others from their texts
    cell = height + line * max(map(len, texts)) + _PAD
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + _PAD) + _PAD, rows * cell + _PAD), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for index, (pixels, lines) in enumerate(zip(pictures, texts, strict=True)):
        left, top = _PAD + index % columns * (width + _PAD), _PAD + index // columns * cell
        scale = min(1.0, height / heights[index])
        size = max(1, round(width * scale)), max(1, round(heights[index] * scale))
        picture = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
        sheet.paste(picture, (left + (width - size[0]) // 2, top + height - size[1]))
        for row, text in enumerate(lines):
            place = left, top + height + row * line
            pen.text(place, _cut(text, font, width), fill=_FAINT if row else _TEXT, font=font)
    return np.asarray(sheet)


def _columns(count: int) -> tuple[int, int]:
    """How many pictures side by side, and how wide each is."""
    columns = min(count, max(_SHEET_WIDTH // (_WIDTHS[1] + _PAD), math.ceil(math.sqrt(count))))
    return columns, int(np.clip(_SHEET_WIDTH // columns - _PAD, *_WIDTHS))


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some: 1:02:03.4."""
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
