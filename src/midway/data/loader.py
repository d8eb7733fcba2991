"""Batches of pairs by step, the same ones whatever the workers, processes and restarts."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from midway.data.background import in_background
from midway.data.order import epoch_order
from midway.data.pairs import PairDataset, PairSample
from midway.data.render import stack_windows
from midway.data.skipped import SkipLog, SkippedClip
from midway.data.views import ViewParameters, stack_views
from midway.data.workers import Workers
from midway.errors import MidwayError

BATCHES_AHEAD = 2
_PAIRS_PER_TASK = 8


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Pairs of one step; its length is the number of pairs."""

    windows: tuple[Tensor, Tensor]
    """Parts of the frames that views are made of, from `stack_windows`, each (2, B, 3, h, w)."""
    views: ViewParameters
    """What is random about the views; stays on the CPU."""
    clips: tuple[str, ...]
    source_seconds: tuple[float, ...]
    target_seconds: tuple[float, ...]
    indices: tuple[int, ...]
    """Places in the epoch that were asked for."""
    skipped: tuple[SkippedClip, ...]
    """Clips that could not be read on the way to this batch."""

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> Self:
        """The same with the windows on `device`; copies from page-locked memory do not wait."""
        motion, initial = (window.to(device, non_blocking=True) for window in self.windows)
        return replace(self, windows=(motion, initial))

    def pin_memory(self) -> Self:
        """The same with the windows in page-locked memory."""
        motion, initial = (window.pin_memory() for window in self.windows)
        return replace(self, windows=(motion, initial))


class PairLoader:
    """Batches of one endless stream of items, shuffled anew each pass.

    Position p of the stream is item p % N of the permutation of pass p // N, for the N items of
    the dataset. A step takes the next ``batch_size / draws_per_clip`` positions, and each
    process every ``world_size``-th of them. So a step is a pure function of the seed, its
    number and the batch size, and to resume is to start at a later step.

    Args:
        dataset: The pairs; its config says how they are batched.
        rank: Number of this process.
        world_size: Number of processes.
        folder: Where `skipped.jsonl` is kept, usually that of the run; None keeps none.

    Raises:
        MidwayError: The batch cannot be shared out evenly, or too many clips are bad.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        rank: int = 0,
        world_size: int = 1,
        folder: Path | None = None,
    ) -> None:
        config = dataset.config
        self._items_per_step = config.batch_size // config.draws_per_clip
        if self._items_per_step % world_size:
            raise MidwayError(
                f"data.batch_size = {config.batch_size}: {self._items_per_step} clips of "
                f"{config.draws_per_clip} pairs cannot be shared by {world_size} processes; give "
                f"a multiple of {config.draws_per_clip * world_size}"
            )
        self.dataset = dataset
        self._rank, self._world_size = rank, world_size
        total, share = dataset.found.total, config.max_bad_share
        self._skips = SkipLog(total=total, max_share=share, folder=folder)
        self._skips.add(dataset.found.skipped, write=rank == 0)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many pairs as the dataset has items; a pass of R draws is R epochs."""
        return max(1, len(self.dataset) // self.dataset.config.batch_size)

    def keys(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index) of the items that this process reads for `step`."""
        first = step * self._items_per_step
        positions = range(first + self._rank, first + self._items_per_step, self._world_size)
        return [self._key(position) for position in positions]

    def batches(self, start_step: int, stop_step: int) -> Iterator[PairBatch]:
        """This process's share of the steps from `start_step` to before `stop_step`.

        A clip on which a reading process crashes or hangs is left out like any other bad one.

        Raises:
            MidwayError: Too many clips turned out bad.
        """
        config = self.dataset.config
        workers = Workers(
            self.dataset.read_all,
            num_workers=config.num_workers,
            timeout_seconds=config.read_timeout_seconds,
        )
        batches = self._read(workers, start_step, stop_step)
        if config.num_workers:
            batches = in_background(batches, ahead=BATCHES_AHEAD)
        with closing(workers), closing(batches):
            for batch in batches:
                self._skips.add(batch.skipped, write=True)
                yield batch

    def _read(
        self, workers: Workers[list[tuple[int, int]], list[PairSample]], start: int, stop: int
    ) -> Generator[PairBatch]:
        """Batches of the samples that the workers read, task by task."""
        items_per_task = max(1, _PAIRS_PER_TASK // self.dataset.config.draws_per_clip)
        tasks = (
            keys[first : first + items_per_task]
            for keys in map(self.keys, range(start, stop))
            for first in range(0, len(keys), items_per_task)
        )
        samples = workers.map(tasks)
        tasks_per_step = math.ceil(self._items_per_step / self._world_size / items_per_task)
        while parts := list(islice(samples, tasks_per_step)):
            batch = _collate([sample for part in parts for sample in part])
            yield batch.pin_memory() if torch.cuda.is_available() else batch

    def _key(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, len(self.dataset))
        return epoch, int(epoch_order(self.dataset.seed, epoch, len(self.dataset))[place])


def _collate(samples: list[PairSample]) -> PairBatch:
    motion, initial = zip(*(sample.windows for sample in samples), strict=True)
    return PairBatch(
        windows=(stack_windows(motion), stack_windows(initial)),
        views=stack_views([sample.views for sample in samples]),
        clips=tuple(sample.clip for sample in samples),
        source_seconds=tuple(sample.source_seconds for sample in samples),
        target_seconds=tuple(sample.target_seconds for sample in samples),
        indices=tuple(sample.index for sample in samples),
        skipped=tuple({skip for sample in samples for skip in sample.skipped}),
    )
