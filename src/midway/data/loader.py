"""Batches of samples by step, the same ones whatever the workers, processes and restarts."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from midway.data.background import in_background
from midway.data.order import epoch_order
from midway.data.render import Clips, render_views, stack_windows
from midway.data.samples import ClipDataset, Sample
from midway.data.skipped import SkipLog, SkippedClip
from midway.data.views import ClipSpec, ViewParameters, stack_views
from midway.data.workers import Workers
from midway.errors import MidwayError

BATCHES_AHEAD = 2
_FRAMES_PER_TASK = 16
"""Results of a worker travel through memory of a fixed size; long clips go in smaller tasks."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Samples of one step, before their views are rendered; its length is their number."""

    regions: Mapping[str, Tensor]
    """Parts of the frames by the name of the region, from `stack_windows`: bytes of shape
    (frames, B, 3, height, width)."""
    views: ViewParameters
    """Everything random about the views; stays on the CPU."""
    seconds: Tensor
    """Time of each frame after the first of its clip, shape (frames, B)."""
    signals: Mapping[str, Tensor]
    """Recorded numbers at the frames, shape (frames, B, ...)."""
    clips: tuple[str, ...]
    indices: tuple[int, ...]
    """Places in the epoch that were asked for."""
    skipped: tuple[SkippedClip, ...]
    """Clips that could not be read on the way to this batch."""

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> Self:
        """Move the tensors to `device`; copies from page-locked memory do not wait."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Copy the tensors to page-locked memory."""
        return self._moved(Tensor.pin_memory)

    def render(self, spec: ClipSpec) -> Clips:
        """Render the views on the device of the regions.

        Args:
            spec: The one that the samples were drawn with.

        """
        views = render_views(spec, self.regions, self.views)
        return Clips(views=views, seconds=self.seconds, signals=self.signals)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            regions={name: move(region) for name, region in self.regions.items()},
            seconds=move(self.seconds),
            signals={name: move(signal) for name, signal in self.signals.items()},
        )


class ClipLoader:
    """Batches of one endless stream of items, shuffled anew each pass.

    Position p of the stream is item p % N of the permutation of pass p // N, for the N items of
    the dataset. A step takes the next ``batch_size / draws_per_clip`` positions, and each
    process every ``world_size``-th of them. So a step is a pure function of the seed, its
    number and the batch size, and to resume is to start at a later step.

    Args:
        dataset: The samples; its config says how they are batched.
        rank: Number of this process.
        world_size: Number of processes.
        folder: Where `skipped.jsonl` is kept, usually that of the run; None keeps none.

    Raises:
        MidwayError: The batch cannot be shared out evenly, or too many clips are bad.
    """

    def __init__(
        self,
        dataset: ClipDataset,
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
                f"{config.draws_per_clip} samples cannot be shared by {world_size} processes; give "
                f"a multiple of {config.draws_per_clip * world_size}"
            )
        self.dataset = dataset
        self._rank, self._world_size = rank, world_size
        total, share = dataset.found.total, config.max_bad_share
        self._skips = SkipLog(total=total, max_share=share, folder=folder)
        self._skips.add(dataset.found.skipped, write=rank == 0)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many samples as the dataset has items; R draws a clip make R epochs."""
        return max(1, len(self.dataset) // self.dataset.config.batch_size)

    def keys(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index) of the items that this process reads for `step`."""
        first = step * self._items_per_step
        positions = range(first + self._rank, first + self._items_per_step, self._world_size)
        return [self._key(position) for position in positions]

    def batches(self, start_step: int, stop_step: int) -> Iterator[ClipBatch]:
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
        self, workers: Workers[list[tuple[int, int]], list[Sample]], start: int, stop: int
    ) -> Generator[ClipBatch]:
        """Batches of the samples that the workers read, task by task."""
        frames_per_item = self.dataset.spec.num_frames * self.dataset.config.draws_per_clip
        items_per_task = max(1, _FRAMES_PER_TASK // frames_per_item)
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


def _collate(samples: list[Sample]) -> ClipBatch:
    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([each.signals[name] for each in samples], axis=1))

    first = samples[0]
    return ClipBatch(
        regions={
            name: stack_windows([each.regions[name] for each in samples]) for name in first.regions
        },
        views=stack_views([each.views for each in samples]),
        seconds=torch.tensor([each.seconds for each in samples], dtype=torch.float32).T,
        signals={name: stacked(name) for name in first.signals},
        clips=tuple(each.clip for each in samples),
        indices=tuple(each.index for each in samples),
        skipped=tuple({skip for each in samples for skip in each.skipped}),
    )
