"""The Grain loader: shuffled, batched, and able to go on exactly where a checkpoint left it."""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from zoo.data.resampling import epoch_of

Batch = dict[str, np.ndarray]


def training_batches(
    source: Any,
    batch_size: int,
    seed: int,
    sampler: str = "instance",
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless shuffled batches of a random-access source of dicts of arrays; reshuffled every epoch.

    A source that has `draw(index, rng)` draws an example anew each time it comes: a random part of a video, mirrored or
    not. The iterator's `get_state()` and `set_state()` name the position exactly: the same state gives the same
    batches, if there are as many workers. `close()` ends what runs beside this process.

    Of several processes each makes its own rows of every batch: those of all together, one after the other, are what
    one process makes, and a position is the same in all of them and for any number of them.

    Args:
      sampler: a name in `zoo.data.resampling.SAMPLERS`; other ones than "instance" want a source with `labels`.
      workers: processes that make the batches, which are the same whatever their number; 0 makes them in threads.
      share: which process this is, and of how many; their number divides the batch.
    """
    if sampler == "instance":
        indices = grain.MapDataset.range(len(source))
    else:
        indices = grain.MapDataset.source(epoch_of(source.labels, sampler, seed).tolist())
    indices = indices.seed(seed).shuffle().repeat()
    if hasattr(source, "draw"):
        items = indices.random_map(lambda index, rng: source.draw(int(index), rng))
    else:
        items = indices.map(lambda index: source[int(index)])
    process, processes = share
    rows = batch_size // processes
    dataset = items.batch(rows, drop_remainder=True)[process::processes]
    # Two threads keep one batch ready while the step runs; more would take cores from the step itself.
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * rows))
    if workers:
        flags.FLAGS.mark_as_parsed()  # Grain hands its absl flags, of which none is set here, to the processes
    return iter(batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))


def evaluation_batches(
    source: Any, batch_size: int, num_items: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """The first `num_items` items once, in order; the last batch is filled up and `weight [B]` is 0 on what fills it.

    Every batch has the same shape, so an evaluation compiles once. `share` is as for `training_batches`.
    """
    count = min(num_items, len(source))
    process, processes = share
    rows = batch_size // processes
    for start in range(process * rows, count + process * rows, batch_size):
        indices = np.arange(start, start + rows)
        items = [source[int(min(index, count - 1))] for index in indices]
        batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
        yield batch | {"weight": (indices < count).astype(np.float32)}
