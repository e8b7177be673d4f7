"""`python -m benchmarks.spoken_words --run runs/...`: how many digits and commands a run of speech_ctc gets wrong.

On voices of espeak-ng that no training heard, clean and under noise; on flite's, another synthesiser's; and on all
recordings of people who say these words that are at hand in Debian's packages: Allison Smith in Asterisk's prompts
(digits and a few commands, alone and joined), the voice of ALSA's speaker test, and one text of TIDIGITS in
pocketsphinx-testdata. With `--write` benchmarks/results/<device>-spoken-words.csv keeps the table.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from benchmarks import on_device, tables
from zoo import command_line, configs, download, hub, publish
from zoo.data import open_dataset
from zoo.data.log_mel import SAMPLE_RATE
from zoo.data.spoken_commands import DIGITS, text_of
from zoo.data.synthesised_speech import FLITE
from zoo.metrics.speech import word_figures
from zoo.registry import ModelCard, WeightSource
from zoo.speller import Speller

FIELDS = ("model", "sound", "texts", "words", "word error rate", "texts right")
_NOISE = (90, 20, 10, 5, 0)  # decibels of words above noise; 90 is none to be heard
_ALLISON, _PROMPTS = "asterisk-core-sounds-en-g722", "usr/share/asterisk/sounds/en_US_f_Allison"
_ALONE = {
    **{f"digits/{number}": word for number, word in enumerate(DIGITS)},
    **{"dictate/pause": "pause", "dictate/record": "record", "hello": "hello", "goodbye": "goodbye", "vm-no": "no"},
    **{"vm-first": "first", "vm-last": "last"},
}
_SPEAKER_TEST = [f"{place}_{side}" for place in ("Front", "Rear") for side in ("Center", "Left", "Right")]
_SPEAKER_TEST += ["Side_Left", "Side_Right"]
_TIDIGITS = "usr/share/pocketsphinx/test/data/tidigits/dhd.2934z.raw"
_JOINED = 40  # texts of three to five of her words, with a quarter of a second between

type Said = list[tuple[np.ndarray, str]]
"""float32 [samples] from -1 to 1 and the words in them."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures a recogniser of speech commands."""

    run: Path
    """The run's folder."""
    texts: int = 256
    """So many of each set of synthetic ones."""
    write: bool = False
    """Keep the figures in benchmarks/results."""


def main(argv: list[str]) -> None:
    arguments = command_line.parse(Arguments, argv, "python -m benchmarks.spoken_words")
    config, model = publish.trained(arguments.run)
    speller = Speller(_card(config), model)
    name = "speech_ctc" if speller.model.is_causal is False else "speech_ctc streaming"
    file = tables.RESULTS / f"{tables.slug(on_device.cpu_name())}-spoken-words.csv"
    table = tables.read(file, "model", "sound")
    for sound, said in _sets(arguments.texts):
        heard = [" ".join(segment.text for segment in speller.transcribe(samples)) for samples, _ in said]
        figures = word_figures([text for _, text in said], heard)
        row = {
            "model": name,
            "sound": sound,
            "texts": str(len(said)),
            "words": str(sum(len(text.split()) for _, text in said)),
            "word error rate": f"{figures['word_error_rate']:.3f}",
            "texts right": f"{figures['texts_right']:.3f}",
        }
        table[row["model"], row["sound"]] = row
        print("  ".join(f"{field} {value}" for field, value in row.items()))
        wrong = [f"{text} > {other}" for (_, text), other in zip(said, heard, strict=True) if text != other]
        print("    " + "; ".join(wrong[:8]))
    if arguments.write:
        header = f"{config.model} after {config.steps} steps, on {on_device.cpu_name()}"
        tables.write(file, header, FIELDS, table.values())


def _sets(texts: int) -> Iterator[tuple[str, Said]]:
    for decibels in _NOISE:
        noise = "" if decibels == max(_NOISE) else f", noise at {decibels} dB"
        yield f"espeak-ng, held-out voices{noise}", _synthetic(texts, ("espeak-ng",), "test", decibels)
    for split, voices in FLITE.items():
        yield f"flite, {' '.join(voices)}", _synthetic(texts, ("flite",), split, max(_NOISE))
    alone, joined = _allison()
    yield "recorded: Allison Smith, single words", alone
    yield "recorded: Allison Smith, words joined", joined
    yield "recorded: ALSA's speaker test", _alsa()
    yield "recorded: TIDIGITS", _tidigits()


def _synthetic(texts: int, synthesisers: tuple[str, ...], split: str, decibels: float) -> Said:
    """As they are drawn for training, but for the noise, and without microphones and rooms."""
    options = {"synthesisers": synthesisers, "decibels": (decibels, decibels), "channel": False}
    data = open_dataset("spoken_commands", split, **options, seed=1)
    items = [data[index] for index in range(texts)]
    return [(item["sound"][: item["samples"]] / np.float32(32768), text_of(item["symbols"])) for item in items]


def _allison() -> tuple[Said, Said]:
    words = [(_decoded(_ALLISON, f"{_PROMPTS}/{name}.g722", "g722"), text) for name, text in _ALONE.items()]
    rng = np.random.default_rng(0)
    joined = []
    for _ in range(_JOINED):
        chosen = rng.integers(len(words), size=rng.integers(3, 6))
        silence = np.zeros(SAMPLE_RATE // 4, np.float32)
        parts = [part for number in chosen for part in (words[number][0], silence)]
        joined.append((np.concatenate([silence, *parts]), " ".join(words[number][1] for number in chosen)))
    return words, joined


def _alsa() -> Said:
    return [
        (_decoded("alsa-utils", f"usr/share/sounds/alsa/{name}.wav", "wav"), name.replace("_", " ").lower())
        for name in _SPEAKER_TEST
    ]


def _tidigits() -> Said:
    return [(_decoded("pocketsphinx-testdata", _TIDIGITS, "s16le"), "two nine three four zero")]


def _decoded(package: str, name: str, form: str) -> np.ndarray:
    """float32 [samples] of a recording in a Debian package; of headerless ones FFmpeg must be told the form."""
    with tempfile.TemporaryDirectory() as folder:
        path = download.member("deb", package, name, Path(folder), by_hand=hub.cache_folder() / "downloads")
        options = {"sample_rate": str(SAMPLE_RATE)} if form == "s16le" else {}
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        with av.open(str(path), "r", format=form, options=options) as container:
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32) / 32768


def _card(config: configs.TrainConfig) -> ModelCard:
    """What a run needs for being asked, before it is published."""
    told = publish.cards()["speech_ctc_commands"]
    return ModelCard(
        **told,
        name=config.model,
        arch=config.model,
        options=config.options,
        source=WeightSource("checkpoint", {}),
        parameters=0,
        flops=0,
        metrics={},
    )


if __name__ == "__main__":
    command_line.run("python -m benchmarks.spoken_words", main)
