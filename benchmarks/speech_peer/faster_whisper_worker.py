"""faster-whisper on sounds, as `python -m benchmarks.word_errors` asks for them; it runs in an environment of its own.

    FOLDER      as argument: the weights as CTranslate2 holds them, with tokenizer.json and config.json

Each line of the input is the path of a sound, float32 samples of 16,000 a second as NumPy saves them; each of the
output JSON: the text, the seconds that it took, and the most memory the process had, in MB.
"""

import json
import resource
import sys
import time

import faster_whisper
import numpy as np

model = faster_whisper.WhisperModel(sys.argv[1], device="cpu", compute_type="float32")
print(json.dumps({"version": faster_whisper.__version__}), flush=True)
for line in sys.stdin:
    samples = np.load(line.strip())
    begun = time.perf_counter()
    segments, _ = model.transcribe(samples, language="en", beam_size=5, vad_filter=True, word_timestamps=True)
    text = " ".join(segment.text.strip() for segment in segments)
    seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"text": text, "seconds": seconds, "memory": memory}), flush=True)
