"""Where a ConvLSTM runs: the encoder-forecaster of Shi et al. 2015 on 64x64 frames, and its smaller levels."""

from ..case import Case


def _sequence(name: str, x: tuple[int, ...], features: int, window: tuple[int, int] = (3, 3)) -> Case:
    kernel = (*window, x[-1] + features, 4 * features)
    return Case(name, f"convlstm {x[0]}x{x[1]}x{x[2]}x{x[3]}", "conv_lstm", (x, kernel, kernel[-1:]))


CASES = (
    _sequence("hidden 64 of 64x64", (8, 10, 64, 64, 64), 64),
    _sequence("hidden 64 of 32x32", (8, 10, 32, 32, 64), 64),
    _sequence("hidden 128 of 16x16", (8, 10, 16, 16, 128), 128),
    _sequence("first layer of 64x64", (8, 10, 64, 64, 1), 64),
)
