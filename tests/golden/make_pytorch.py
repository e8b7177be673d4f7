"""Small files as PyTorch writes them, in both formats, and what PyTorch reads from them.

    python tests/golden/make_pytorch.py          (PyTorch 2.13.0, in an environment of its own)

Writes pytorch_zip.pth, pytorch_legacy.pth and, with the values that torch.load finds in both, pytorch.npz beside this
script. The bfloat16 values are kept as float32, which holds them exactly.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


def tensors():
    """A state dict with every dtype that is read, and every way for a tensor to lie in its storage."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    sheet = normal(6, 8)
    state = OrderedDict(
        double=normal(3).double(),
        float=normal(2, 3, 4),
        half=normal(5).half(),
        bfloat16=normal(4, 2).bfloat16(),
        long=torch.tensor([-(2**62), -1, 0, 2**62]),
        int=torch.tensor([[-(2**30), 7]], dtype=torch.int32),
        short=torch.tensor([-30000, 30000], dtype=torch.int16),
        char=torch.tensor([-128, 127], dtype=torch.int8),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(41),
        empty=torch.zeros(0, 3),
        sheet=sheet,
        transposed=sheet.t(),
        window=sheet[1:5:2, 2:7],
        every_third=sheet.flatten()[4::3],
        expanded=normal(3, 1).expand(3, 5),
        channels_last=normal(2, 3, 4, 5).to(memory_format=torch.channels_last),
        bfloat16_window=normal(4, 6).bfloat16()[:, 3:],
        parameter=torch.nn.Parameter(normal(2)),
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # as nn.Module.state_dict leaves it
    return {"epoch": 12, "note": None, "lr": [0.1], "model": state}


def main():
    folder = Path(__file__).parent
    values = {}
    for name, zipped in (("pytorch_zip.pth", True), ("pytorch_legacy.pth", False)):
        torch.save(tensors(), folder / name, _use_new_zipfile_serialization=zipped)
        state = torch.load(folder / name, weights_only=True)["model"]
        found = {f"model.{key}": value.detach() for key, value in state.items()}
        found = {
            key: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for key, value in found.items()
        }
        assert not values or all(np.array_equal(values[key], found[key]) for key in found)
        values = found
    np.savez_compressed(folder / "pytorch.npz", **values)


if __name__ == "__main__":
    main()
