"""Cuts a small labelled set out of eight films: `python docs/cut_films.py DIR`.

A class is a film, and what there is to learn is which one a clip is of. Clips last two seconds. Six of each film are
for training, out of its first 60%; three are held out, out of its last 30%: no moment is in both.
`docs/fine_tuning.md` shows what becomes of it.
"""

import sys
from pathlib import Path

import numpy as np

from zoo.data.encode import write_video
from zoo.data.real_films import FILMS, STORED_RATE, frames_of

CLASSES = ("bunny", "cap12", "cat", "concert", "interview", "minions", "tree", "vtest")
LENGTH = round(2 * STORED_RATE)  # frames of a clip
PARTS = {"train": (0.0, 0.6, 6), "val": (0.7, 1.0, 3)}  # from and to which share of a film, and how many clips


def main(folder: Path) -> None:
    for film in FILMS:
        if film.name not in CLASSES:
            continue
        frames = frames_of(film)
        for part, (start, end, count) in PARTS.items():
            place = folder / part / film.name
            place.mkdir(parents=True, exist_ok=True)
            firsts = np.linspace(start * len(frames), end * len(frames) - LENGTH, count).astype(int)
            for number, first in enumerate(firsts):
                clip = np.asarray(frames[first : first + LENGTH])
                write_video(place / f"{number}.mp4", clip, frame_rate=round(STORED_RATE), enlarge=1)
    print(f"{folder}: {len(CLASSES)} classes, clips of {LENGTH / STORED_RATE:g} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
