"""What a static estimate has to know of a chip."""

from dataclasses import dataclass

from zoo.chips import PEAK_FLOPS


@dataclass(frozen=True)
class Chip:
    """One TensorCore chip. `peak` counts bfloat16 FLOP/s, a multiply-add as two; `bandwidth` is HBM's bytes/s."""

    name: str
    topology: str
    clock: float
    bandwidth: float
    peak: float
    accelerator_type: str
    device_kind: str


# Bandwidth: Google Cloud's pages "TPU v5e" and "TPU v6e". The clock is not published; it is the one
# at which the matrix units' multiply-adds a cycle give the published peak (v5e: 4 units of 128x128, v6e: 2 of 256x256).
CHIPS = {
    "v5e": Chip("v5e", "v5e:2x2", 1.5e9, 819e9, PEAK_FLOPS["TPU v5 lite"], "v5litepod-4", "TPU v5 lite"),
    "v6e": Chip("v6e", "v6e:2x2", 1.75e9, 1640e9, PEAK_FLOPS["TPU v6 lite"], "v6e-4", "TPU v6 lite"),
}

_TWO_CORES = "its programs spread over two cores, and this clock runs one, which sees half of their work"
# On v5p an addition that moves 805 MB is counted as 403 MB, in half the time that HBM takes for them.
REFUSED = {"v4": _TWO_CORES, "v5p": _TWO_CORES}
