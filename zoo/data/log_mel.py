"""Sound as speech models hear it: how loud each of some bands of pitch is, every hundredth of a second."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000  # samples a second
SECONDS = 30  # that a model hears at a time
HOP = 160  # samples from one frame to the next
_SPAN = 400  # samples that a frame is made of
BEFORE = _SPAN - HOP  # samples before a hop that belong to its frame, where it ends with the hop
_FLOOR = 1e-6  # power that is added, so that digital silence and faint noise are alike: speech has 0.01 to 100

# The scale of Slaney's Auditory Toolbox (1998): linear up to 1,000 Hz, logarithmic above.
_LINEAR_HERTZ, _HERTZ_A_MEL = 1_000.0, 200 / 3
_LOG_STEP = np.log(6.4) / 27


def log_mel(samples: Float[jax.Array, "batch samples"], num_mels: int = 80) -> Float[jax.Array, "batch frames mels"]:
    """Log-mel spectrogram as Whisper was trained on it, about -1 to 1: one frame for each `HOP` samples.

    Magnitudes below a hundred-millionth of the loudest of the clip (80 dB) are as if they were that. Radford et al.
    2022, arXiv:2212.04356.

    Args:
      samples: float32 from -1 to 1, `SAMPLE_RATE` a second; a multiple of `HOP`.
    """
    around = _SPAN // 2
    padded = jnp.pad(samples, ((0, 0), (around, around)), mode="reflect")
    starts = HOP * np.arange(samples.shape[1] // HOP)
    mel = jnp.log10(jnp.maximum(_bands(padded[:, starts[:, None] + np.arange(_SPAN)], num_mels), 1e-10))
    loudest = mel.max(axis=(1, 2), keepdims=True)
    return (jnp.maximum(mel, loudest - 8) + 4) / 4


def causal_log_mel(samples: Float[jax.Array, "batch samples"], num_mels: int) -> Float[jax.Array, "batch frames mels"]:
    """Log-mel spectrogram of sound as it comes, about -1 to 2: a frame for each `HOP` samples after the first `BEFORE`.

    A frame ends with the last sample of its hop, and no frame depends on what comes later or on how loud the rest is.

    Args:
      samples: float32 from -1 to 1, `SAMPLE_RATE` a second; `BEFORE` and a multiple of `HOP`.
    """
    starts = HOP * np.arange((samples.shape[1] - BEFORE) // HOP)
    mel = jnp.log10(_bands(samples[:, starts[:, None] + np.arange(_SPAN)], num_mels) + _FLOOR)
    return mel / 3 + 1


def _bands(frames: Float[jax.Array, "batch frames span"], num_mels: int) -> Float[jax.Array, "batch frames mels"]:
    """How much power is in each band."""
    window = np.hanning(_SPAN + 1)[:-1].astype(np.float32)
    spectrum = jnp.fft.rfft(frames * window)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return power @ mel_filters(num_mels)


@functools.cache
def mel_filters(num_mels: int) -> np.ndarray:
    """Triangular filters of equal area, evenly spaced on the mel scale from 0 to 8,000 Hz: float32 [201, num_mels]."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, _SPAN // 2 + 1)
    corners = _hertz(np.linspace(0, _mel(SAMPLE_RATE / 2), num_mels + 2))
    rising = (hertz[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz[:, None]) / (corners[2:] - corners[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])
    return filters.astype(np.float32)


def _mel(hertz: float) -> float:
    linear = hertz / _HERTZ_A_MEL
    return linear if hertz < _LINEAR_HERTZ else _LINEAR_HERTZ / _HERTZ_A_MEL + np.log(hertz / _LINEAR_HERTZ) / _LOG_STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    corner = _LINEAR_HERTZ / _HERTZ_A_MEL
    return np.where(mel < corner, mel * _HERTZ_A_MEL, _LINEAR_HERTZ * np.exp(_LOG_STEP * (mel - corner)))
