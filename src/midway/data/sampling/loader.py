"""Dataloader of clips: deterministic batches, independent of workers, processes and restarts."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from midway.data.clips.skipped import SkipLog, SkippedClip
from midway.data.sampling.ahead import Batch, read_ahead
from midway.data.sampling.samples import ClipDataset, Sample
from midway.data.sampling.stream import Stream, StreamLoader
from midway.data.views.render import Clips, render_views, stack_windows
from midway.data.views.spec import ClipSpec, ViewParameters, stack_views

_FRAMES_PER_TASK = 16
"""Frames of a task unless one item has more: workers return results in memory of fixed size."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch(Batch):
    """Samples of one step, before their views are rendered; its length is the number of samples."""

    regions: dict[str, Tensor]
    """Windows of the frames by name of the region, from `stack_windows`: uint8 of shape
    (frames, B, 3, height, width)."""
    views: ViewParameters
    """Random parameters of the views; NumPy arrays, which stay on the CPU."""
    seconds: Tensor
    """Time of each frame after the first frame of its clip, shape (frames, B)."""
    signals: dict[str, Tensor]
    """Recorded signals at the frames, shape (frames, B, ...)."""
    clips: tuple[str, ...]
    """Name of the clip of each sample."""
    indices: tuple[int, ...]
    """Requested item of the epoch for each sample."""
    skipped: tuple[SkippedClip, ...]
    """Clips that failed while this batch was read; other clips replace them."""

    def __len__(self) -> int:
        return len(self.clips)

    def render(self, spec: ClipSpec) -> Clips:
        """Render the views on the device of the regions.

        Args:
            spec: Specification that the samples were drawn with.

        """
        views = render_views(spec, self.regions, self.views)
        return Clips(views=views, seconds=self.seconds, signals=self.signals)


class ClipLoader(StreamLoader):
    """Dataloader over an endless stream of clips; see `Stream`.

    An epoch has as many samples as the dataset has items; with R draws per clip, one pass over the
    clips takes R epochs.

    Args:
        dataset: Dataset of the samples; its config sets the batch size.
        rank: Rank of this process.
        world_size: Number of processes.
        folder: Folder of `skipped.jsonl`, usually that of the run; None writes no file.

    Raises:
        MidwayError: The batch size is not divisible among the processes, or too many clips are bad.
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
        self.dataset = dataset
        self._stream = Stream(
            size=len(dataset),
            batch_size=config.batch_size,
            seed=dataset.seed,
            rank=rank,
            world_size=world_size,
            samples_per_item=config.draws_per_clip,
        )
        total, share = dataset.found.total, config.max_bad_share
        self._skips = SkipLog(total=total, max_share=share, folder=folder)
        self._skips.add(dataset.found.skipped, write=rank == 0)

    def batches(self, start_step: int, stop_step: int) -> Iterator[ClipBatch]:
        """Yield this process's share of the steps from `start_step` to before `stop_step`.

        A clip on which a worker crashes or hangs is skipped like any other bad clip.

        Raises:
            MidwayError: Too many clips are bad.
        """
        config = self.dataset.config
        items_per_task = max(
            1, _FRAMES_PER_TASK // (self.dataset.spec.num_frames * config.draws_per_clip)
        )
        tasks = (
            keys[first : first + items_per_task]
            for keys in map(self.keys, range(start_step, stop_step))
            for first in range(0, len(keys), items_per_task)
        )
        tasks_per_step = math.ceil(self._stream.items_per_process / items_per_task)
        batches = read_ahead(
            self.dataset.read_all,
            tasks,
            partial(_collate, tasks_per_step=tasks_per_step),
            num_workers=config.num_workers,
            timeout_seconds=config.read_timeout_seconds,
        )
        with closing(batches):
            for batch in batches:
                self._skips.add(batch.skipped, write=True)
                yield batch


def _collate(results: Iterator[list[Sample]], *, tasks_per_step: int) -> Iterator[ClipBatch]:
    while parts := list(islice(results, tasks_per_step)):
        yield _batch([sample for part in parts for sample in part])


def _batch(samples: list[Sample]) -> ClipBatch:
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
