"""`python -m tests.counted ARGUMENTS`: `zoo train` on a tiny data set, that notes which examples each step has seen.

The notes of process N go into seen-N.jsonl of the folder `ZOO_TEST_SEEN`, a line a step. `ZOO_TEST_PAUSE` seconds pass
before each step; with `ZOO_TEST_HANG` "N:S" process N hangs before step S.
"""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo import command_line, data, registry, train
from zoo.configs import TrainConfig
from zoo.parallel import Parallel
from zoo.process_watch import Watch

ITEMS = 40
CONFIG = TrainConfig(
    model="counting",
    task="classification",
    dataset="counted",
    steps=24,
    batch_size=16,
    learning_rate=0.05,
    evaluation_items=20,
    log_every=1,
    evaluate_every=12,
    checkpoint_every=4,
)


class Counting(nnx.Module):
    """Logits of clips from their mean colour, with batch norm and dropout.

    Nothing is added before the batch norm, which would take it out again: its gradient would be rounding alone, and
    Adam makes steps of any gradient.
    """

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, 6, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(6, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.dropout(self.norm(self.first(x.mean(axis=(1, 2, 3))))))


def counting(*, num_classes: int = 3, rngs: nnx.Rngs) -> Counting:
    return Counting(num_classes, rngs=rngs)


class Counted:
    """Clips of noise, each with its number."""

    num_classes = 3

    def __init__(self, split: str):
        self.split = split

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = np.random.default_rng([index, len(self.split)])
        video = draw.integers(0, 255, (2, 4, 4, 3)).astype(np.uint8)
        return {"video": video, "label": np.int32(index % 3), "index": np.int32(index)}


def register() -> None:
    data.DATASETS["counted"] = Counted
    registry._ARCHITECTURES["counting"] = counting


def seen(folder: Path) -> list[list[int]]:
    """The examples of each step along the history that survived: of a step that was done twice, those of the last."""
    rows: list[dict[str, Any]] = []
    for path in folder.glob("seen-*.jsonl"):
        rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps: dict[int, tuple[str, dict[int, list[int]]]] = {}
    for row in sorted(rows, key=lambda row: row["run"]):  # stable: a process's own rows stay in order
        run, parts = steps.get(row["step"], ("", {}))
        parts = parts if run == row["run"] else {}
        steps[row["step"]] = row["run"], parts | {row["process"]: row["index"]}
    return [[index for process in sorted(parts) for index in parts[process]] for _, (_, parts) in sorted(steps.items())]


def epochs(folder: Path) -> list[list[int]]:
    """The examples in the order in which they were seen, cut into whole epochs."""
    order = list(itertools.chain.from_iterable(seen(folder)))
    return [order[start : start + ITEMS] for start in range(0, len(order) - ITEMS + 1, ITEMS)]


def main() -> None:
    register()
    step_now = 0
    pause = float(os.environ.get("ZOO_TEST_PAUSE", "0"))
    hangs, at = (int(number) for number in os.environ.get("ZOO_TEST_HANG", "-1:0").split(":"))
    beat, split = Watch.beat, Parallel.split

    def noted_beat(self: Watch, step: int) -> None:
        nonlocal step_now
        if jax.process_index() == hangs and step == at:
            time.sleep(1e6)
        beat(self, step)
        step_now = step
        time.sleep(pause)

    def noted_split(self: Parallel, batch: Any) -> Any:
        if step_now:
            row = {
                "run": os.environ.get("ZOO_TEST_RUN", "0"),
                "process": jax.process_index(),
                "step": step_now,
                "index": batch["index"].tolist(),
            }
            with (Path(os.environ["ZOO_TEST_SEEN"]) / f"seen-{jax.process_index()}.jsonl").open("a") as lines:
                lines.write(json.dumps(row) + "\n")
        return split(self, batch)

    Watch.beat, Parallel.split = noted_beat, noted_split
    command_line.run("zoo train", train.main)


if __name__ == "__main__":
    main()
