"""What an estimate has to know of a chip."""

from dataclasses import dataclass

from zoo.chips import PEAK_FLOPS


@dataclass(frozen=True)
class Chip:
    """One TPU chip.

    Args:
      topology: a name that libtpu knows of the smallest slice.
      clock: cycles a second.
      bandwidth: of HBM, in bytes/s; `hbm_bytes` is how much there is of it.
      peak: bfloat16 FLOP/s, a multiply-add counted as two.
      link: bytes/s of one of its links to its neighbours, in one direction.
      accelerator_type, device_kind: its names in libtpu's environment and in JAX.
    """

    name: str
    topology: str
    clock: float
    bandwidth: float
    hbm_bytes: float
    peak: float
    link: float
    accelerator_type: str
    device_kind: str


# Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" have HBM, and what all links of a chip carry in one
# direction: 2400 Gbit/s of six links, 1600 of four, 4800 of six and 3200 of four. The clock is not published; it is
# the one at which the matrix units' multiply-adds a cycle give the published peak (v5e: 4 units of 128x128, v6e: 2 of
# 256x256; v4 and v5p: 8 on two cores).
TPUS = {
    "v4": Chip("v4", "v4:2x2x1", 1.05e9, 1228e9, 32e9, PEAK_FLOPS["TPU v4"], 50e9, "v4-8", "TPU v4"),
    "v5e": Chip("v5e", "v5e:2x2", 1.5e9, 819e9, 16e9, PEAK_FLOPS["TPU v5 lite"], 50e9, "v5litepod-4", "TPU v5 lite"),
    "v5p": Chip("v5p", "v5p:2x2x1", 1.75e9, 2765e9, 95e9, PEAK_FLOPS["TPU v5p"], 100e9, "v5p-8", "TPU v5"),
    "v6e": Chip("v6e", "v6e:2x2", 1.75e9, 1640e9, 32e9, PEAK_FLOPS["TPU v6 lite"], 100e9, "v6e-4", "TPU v6 lite"),
}

_TWO_CORES = "its programs spread over two cores, and this clock runs one, which sees half of their work"
# On v5p an addition that moves 805 MB is counted as 403 MB, in half the time that HBM takes for them.
REFUSED = {"v4": _TWO_CORES, "v5p": _TWO_CORES}

CHIPS = {name: chip for name, chip in TPUS.items() if name not in REFUSED}
"""Those that the clock can judge."""
