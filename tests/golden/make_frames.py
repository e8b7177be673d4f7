"""Figures of predicted frames by scikit-image, which know nothing of the zoo.

    python tests/golden/make_frames.py

Runs with scikit-image 0.26.0 in an environment of its own and writes frames.npz beside this script: SSIM with both data
ranges, PSNR, and the squared error summed over pixels, of each pair of `frames()`. The tests take
`frames` from here; it needs NumPy alone.
"""

from pathlib import Path

import numpy as np


def frames():
    """A prediction and the truth, float64 [2, 3, 24, 20, 2] in [0, 1]: blots, and the same moved, blurred and noisy."""
    draw = np.random.RandomState(2004_0412)
    y, x = np.mgrid[:24, :20]
    truth, prediction = np.zeros((2, 2, 3, 24, 20, 2))
    for place in np.ndindex(2, 3, 2):
        middle, radius = draw.uniform(5, 15, 2), draw.uniform(2, 6)
        away = np.hypot(y - middle[0], x - middle[1])
        truth[place[0], place[1], :, :, place[2]] = away < radius
        soft = 1 / (1 + np.exp(away + draw.normal() - radius)) + draw.normal(0, 0.05, away.shape)
        prediction[place[0], place[1], :, :, place[2]] = soft.clip(0, 1)
    return prediction, truth


def main():
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

    prediction, truth = frames()
    pairs = [(prediction[place], truth[place]) for place in np.ndindex(2, 3)]
    results = {
        "ssim": [structural_similarity(a, b, channel_axis=-1, data_range=1.0) for a, b in pairs],
        "ssim_range2": [structural_similarity(a, b, channel_axis=-1, data_range=2.0) for a, b in pairs],
        "psnr": [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in pairs],
        "mse": [mean_squared_error(a, b) * a.size for a, b in pairs],
    }
    results = {name: np.reshape(values, (2, 3)) for name, values in results.items()}
    for name, values in results.items():
        print(name, values.round(4).tolist())
    np.savez_compressed(Path(__file__).with_name("frames.npz"), **results)


if __name__ == "__main__":
    main()
